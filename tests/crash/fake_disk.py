"""The fake disk's other half: reads a trace (fake_disk.c) and says what a power cut at any moment could have left.

A sync makes everything durable that was written to that file before it. Of what was written after a file's last sync, any part
may be there: the choice is the caller's.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SECTOR = 512
"""What a disk writes whole."""


@dataclass(frozen=True)
class Record:
    """One thing that happened to the file `name`: W write, T truncate, S sync, U unlink."""

    kind: str
    name: str
    offset: int
    data: bytes


Keep = Callable[[], bool]
"""Whether a sector that was not synced is there after the power cut."""


@dataclass
class File:
    """`durable`: as of the last sync; `pending`: what happened since, in order."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for record in self.pending:
            change(self.durable, record)
        self.pending.clear()

    def after_power_cut(self, keep: Keep) -> bytes:
        image = bytearray(self.durable)
        for record in self.pending:
            if record.kind == "T":
                if keep():
                    change(image, record)
                continue
            for begin in range(0, len(record.data), SECTOR):
                if keep():
                    part = record.data[begin : begin + SECTOR]
                    change(image, Record("W", record.name, record.offset + begin, part))
        return bytes(image)


def change(image: bytearray, record: Record) -> None:
    """Do to `image` what a write or a truncation does; a gap reads as zeros."""
    end = record.offset if record.kind == "T" else record.offset + len(record.data)
    if len(image) < end:
        image.extend(bytes(end - len(image)))
    if record.kind == "T":
        del image[end:]
    else:
        image[record.offset : end] = record.data


class Disk:
    """The files of a directory, as the trace brings them about."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}

    def apply(self, record: Record) -> None:
        if record.kind == "U":
            self.files.pop(record.name, None)
            return
        file = self.files.setdefault(record.name, File())
        if record.kind == "S":
            file.sync()
        else:
            file.pending.append(record)

    def after_power_cut(self, directory: Path, keep: Keep) -> None:
        """Write what is left into the empty `directory`. Shared memory files do not survive."""
        for name, file in self.files.items():
            if not name.endswith("-shm"):
                (directory / name).write_bytes(file.after_power_cut(keep))


def build(directory: Path) -> Path:
    """Compile the library. Raises: FileNotFoundError without a C compiler."""
    library = directory / "fake_disk.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "fake_disk.c", "-ldl"], check=True)
    return library


def run(library: Path, directory: Path, trace: Path, *arguments: str) -> None:
    """Run appender.py on the fake disk; it must end by itself and well."""
    told = {"LD_PRELOAD": str(library), "FAKE_DISK_DIR": str(directory), "FAKE_DISK_TRACE": str(trace)}
    program = [sys.executable, str(HERE / "appender.py"), str(directory), *arguments]
    subprocess.run(program, env=os.environ | told, check=True, timeout=60)


def read(trace: Path) -> Iterator[Record]:
    """The records of a trace, in order."""
    data = trace.read_bytes()
    place = 0
    while place < len(data):
        kind, length = chr(data[place]), data[place + 1]
        name = data[place + 2 : place + 2 + length].decode()
        offset, size = struct.unpack_from("<QI", data, place + 2 + length)
        place += 14 + length
        yield Record(kind, name, offset, data[place : place + size])
        place += size
