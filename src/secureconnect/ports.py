"""What the house stands on and the simulator replaces: wall time, chance, ids, blocking work, and bytes from the network.

Monotonic time is the event loop's own (`trio.current_time`, `anyio.current_time`): a virtual clock replaces that by itself.
Real implementations: `backends/system.py` (clock, rng, ids, blocking), `server/transport.py` (sockets).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """Wall time, for what people and tokens read; it may jump, so nothing is ordered or timed by it."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...


def rfc3339(us: int) -> str:
    """A moment of the wall clock as RFC 3339 with milliseconds: `2026-01-17T08:30:00.123Z`."""
    return f"{_second(us // 1_000_000)}.{us // 1000 % 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    """Formatting one costs 3 µs, and every answer of a second has the same."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


class Rng(Protocol):
    """Chance: jitter and secrets."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def secret(self, size: int) -> bytes:
        """`size` bytes that nobody can guess (in production)."""
        ...


class Ids(Protocol):
    """Fresh identifiers."""

    def new(self) -> str:
        """A UUID in its canonical text form, never given before."""
        ...


class Blocking(Protocol):
    """Work that would block or burn the loop for over 5 ms: password hashing, disk."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` aside and return its result or raise its exception.

        Cancellation: returns at once; the work itself goes on and its result is dropped.
        """
        ...


class Disk(Protocol):
    """Small files in a folder of this node's own. What a write has returned from survives a power cut.

    Writes are done one after another in the order of their calls, those included whose caller was cancelled.
    Every method raises OSError, and then may have done a part. Cancellation: returns at once; the work goes on.
    """

    async def read(self, name: str) -> bytes | None:
        """The whole file; None: there is none."""
        ...

    async def write(self, name: str, data: bytes, *, at: int) -> None:
        """Put `data` at this place, at most the file's length, and end the file behind it. A crash may leave a part of it."""
        ...

    async def replace(self, name: str, data: bytes) -> None:
        """Make this the file. Atomic: a crash leaves the whole of the old one or of the new one."""
        ...


class Transport(Protocol):
    """The bytes of one connection. Implementations: kernel socket, simulated network, TLS (later).

    One task receives. After the handshake every byte leaves through `send_now`, so what one caller writes whole stays whole.
    """

    peer: str
    """Address of the other side for logs and limits, `host:port`; never parsed by the gateway."""

    def send_now(self, data: bytes | memoryview, /) -> int:
        """Write what fits now and return how many bytes were taken.

        Raises: BlockingIOError when nothing fits; OSError when the connection is gone. Never blocks.
        """
        ...

    async def wait_writable(self) -> None:
        """Return when `send_now` may take something. One waiter at a time. Raises: OSError when the connection is gone."""
        ...

    async def receive(self, max_bytes: int, /) -> bytes:
        """The next bytes, b"" at the peer's end. Raises: OSError (ConnectionError) when the connection is gone."""
        ...

    def send_eof(self) -> None:
        """No more will be written (half close). Idempotent; never raises."""
        ...

    def abort(self) -> None:
        """Close now. Wakes whoever waits, with OSError or b"". Idempotent; never raises."""
        ...


class Listener(Protocol):
    """Where connections come from."""

    url: str
    """What a client on this machine may use: `http://host:port`."""

    async def accept(self) -> Transport:
        """The next connection. Raises: OSError when the process is out of descriptors (wait and try again)."""
        ...

    def close(self) -> None:
        """Take no more connections. Idempotent."""
        ...
