"""The real clock, chance, ids and threads behind `ports`, and the secret that a node makes for itself.

The one place that imports them: everything else is handed a port, so that the simulator can hand it another.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from secureconnect.errors import BackendDown, ConfigError
from secureconnect.ids import as_uuid

T = TypeVar("T")

CLOCK_JUMP_US = 1_000_000
"""A step back that is worth a line in the log; time synchronisation makes smaller ones all day."""
IDS_PER_BLOCK = 256
"""One system call fetches the bytes of so many ids (4 KiB)."""
WORK_THREADS = 2
"""At once: six password hashes in parallel stalled the event loop for 37 ms on two cores (libraries.md §9)."""
SECRET_BYTES = 32
"""As long as the hash it keys (RFC 7518 §3.2), before its text form in hex."""

_log = structlog.get_logger("secureconnect.system")


class SystemClock:
    """Wall time. It follows the machine's clock wherever that goes, and says so when it goes back."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last_us = 0

    def now_us(self) -> int:
        now_us = self._now_ns() // 1000
        if now_us < self._last_us - CLOCK_JUMP_US:
            _log.warning("clock_went_back", by_s=round((self._last_us - now_us) / 1e6, 3))
        self._last_us = now_us
        return now_us


class SystemRng:
    """Chance: the fast generator for jitter, the kernel's for secrets."""

    def random(self) -> float:
        return random.random()

    def secret(self, size: int) -> bytes:
        return os.urandom(size)


class SystemIds:
    """UUIDs of version 4 from the kernel's randomness, fetched in blocks. For one thread, the event loop's."""

    def __init__(self) -> None:
        self._block = b""
        self._next = 0

    def new(self) -> str:
        if self._next == len(self._block):
            self._block, self._next = os.urandom(16 * IDS_PER_BLOCK), 0
        self._next += 16
        return as_uuid(self._block[self._next - 16 : self._next])


class ThreadBlocking:
    """Work in at most `threads` threads at once; more of it waits.

    Cancellation: returns at once; the work goes on, keeps its place among the threads until it ends, and its result is dropped.
    """

    def __init__(self, threads: int = WORK_THREADS) -> None:
        self._limiter = trio.CapacityLimiter(threads)

    async def run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


def kept_secret(folder: Path) -> str:
    """The secret in `folder`/secret, made there (mode 0600) if there is none. Blocking: a few milliseconds, at start only.

    Atomic: another process that starts at the same moment gets the same one, and a crash leaves the whole or nothing.
    Raises: ConfigError when it can neither be read nor made, or is no secret.
    """
    path = folder / "secret"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _make(path, os.urandom(SECRET_BYTES).hex())
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
            _log.warning("secret_was_readable", path=str(path), now="0600")
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(
            f"DATA_DIR: cannot keep the secret in {path}: {error.strerror or error}; "
            "give a folder that this user may write, or SECURECONNECT_SECRET"
        ) from error
    except UnicodeDecodeError:
        secret = ""
    if len(secret) < SECRET_BYTES:
        raise ConfigError(
            f"DATA_DIR: {path} holds no secret of at least {SECRET_BYTES} characters; restore it, "
            "or delete it to get a new one (everyone logs in again)"
        )
    return secret


def _make(path: Path, secret: str) -> None:
    """Write beside, sync, then link into place: `link` does not replace what another process made meanwhile."""
    beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secret + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            return
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def sole_server(database: Path) -> Iterator[None]:
    """Be the one server of an embedded database, for the length of the block; the kernel lets go of it when the process ends.

    Raises: BackendDown when another server has it, ConfigError when the lock's file cannot be made.
    """
    path = database.with_name(f"{database.name}.lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"DATA_DIR: cannot make {path}: {error.strerror or error}; give a folder that this user may write"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackendDown(
                "sql", f"Another server runs on {database}: stop it, or give this one a DATA_DIR of its own", retry_after_s=None
            ) from None
        yield
    finally:
        os.close(descriptor)
