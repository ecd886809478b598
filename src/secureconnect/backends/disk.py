"""The real disk behind `ports.Disk`: a folder, with everything synced before it is said to be written.

One thread does all the work of a folder. So what was called first is done first, also when its caller was cancelled meanwhile,
and a disk that hangs holds up nothing but its own callers: password hashing has other threads.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from secureconnect.backends.system import ThreadBlocking
from secureconnect.errors import ConfigError

NODES_MAX: Final = 64
"""Nodes of one machine that share a data folder. Each has a folder of its own in it."""


@contextmanager
def own_disk(data_dir: Path) -> Iterator[FolderDisk]:
    """A folder in `data_dir` that no other running node has, for the length of the block: the first that is free.

    So what a node that died had kept is brought home by the next one that starts here. The kernel lets go of it when the process
    ends. Raises: ConfigError.
    """
    for number in range(1, NODES_MAX + 1):
        folder = data_dir / f"node-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                f"DATA_DIR: cannot make {folder}: {error.strerror}; give a folder that this user may write"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield FolderDisk(folder)
            return
        finally:
            os.close(descriptor)
    raise ConfigError(f"DATA_DIR: {NODES_MAX} nodes run in {data_dir}; give this one a folder of its own")


class FolderDisk:
    """Implements `ports.Disk` in `folder`, which is made when it is first written to. Files are readable by this user only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadBlocking(threads=1)

    async def read(self, name: str) -> bytes | None:
        return await self._thread.run(partial(_read, self._folder / name))

    async def write(self, name: str, data: bytes, *, at: int) -> None:
        await self._thread.run(partial(_write, self._folder / name, data, at))

    async def replace(self, name: str, data: bytes) -> None:
        await self._thread.run(partial(_replace, self._folder / name, data))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes, at: int) -> None:
    """What stood behind `at` goes first: else a crash could leave its rest behind the new data, where it would be read."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, at)
        _put(descriptor, data, at)
    finally:
        os.close(descriptor)
    if is_new:
        _sync_folder(path.parent)


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")  # the one thread makes it ours; what a crash left of it is overwritten
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _put(descriptor, data, 0)
    finally:
        os.close(descriptor)
    beside.replace(path)
    _sync_folder(path.parent)


def _put(descriptor: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], at + done)
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
