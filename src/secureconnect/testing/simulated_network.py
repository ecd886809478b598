"""A network in virtual time: latency, short writes and reads, bounded windows, holes, resets.

Each direction of a connection holds at most `window_bytes` that were sent and not yet received; `send_now` takes what fits.
Bytes arrive in order, each piece after a latency of its own. Between two hosts lies one link: while it is a *hole* nothing
arrives, in either direction, no end and no reset either, and nobody is told; healed, everything arrives late. Closing over unread
bytes, or writing to who has closed, is a reset, as in the kernel: the peer loses what it has not received. An end that `vanish`es
leaves the other half open: it hears nothing more, and the kernel gives up what it sends after `UNACKNOWLEDGED_S`.

`network.memory_pair` is the other network of this lab: without time, for tests that look at one connection byte by byte.
"""

from __future__ import annotations

import math
from collections import deque

import trio

from secureconnect.server.transport import USER_TIMEOUT_MS
from secureconnect.testing.world import World

UNACKNOWLEDGED_S = USER_TIMEOUT_MS / 1000
"""As the server's real connections ask of the kernel."""
SIP_S = 0.1
"""Between two reads of a slow reader."""


class _Link:
    """What lies between two hosts."""

    def __init__(self) -> None:
        self.is_hole = False
        self.ends: dict[SimulatedTransport, None] = {}
        self.healed: trio.Event | None = None


class _Pipe:
    """One direction. `size`: bytes sent and not received."""

    __slots__ = ("chunks", "ends_at", "last_at", "size")

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, bytes | memoryview]] = deque()
        self.size = 0
        self.last_at = 0.0
        self.ends_at = math.inf  # when the reader sees that no more comes


class SimulatedTransport:
    """One end of a connection, a `ports.Transport`. Made by `SimulatedNetwork.connect`."""

    def __init__(self, net: SimulatedNetwork, link: _Link, *, host: str, peer: str) -> None:
        self.peer = peer
        self.host = host
        self.is_aborted = False
        self.is_vanished = False
        self.sip_bytes: int | None = None
        """A slow reader: the most that one `receive` takes, SIP_S after the one before."""
        self._net = net
        self._link = link
        self._in = _Pipe()
        self._out = _Pipe()
        self._other: SimulatedTransport = self
        self._has_ended = False
        self._reset_at = math.inf
        self._readable: trio.Event | None = None
        self._writable: trio.Event | None = None

    def join(self, other: SimulatedTransport) -> None:
        """Make these two the ends of one connection."""
        self._other, other._other = other, self
        other._in, other._out = self._out, self._in

    # -- ports.Transport

    def send_now(self, data: bytes | memoryview, /) -> int:
        """Raises: BlockingIOError, BrokenPipeError, ConnectionResetError."""
        self._check()
        if self._has_ended:
            raise BrokenPipeError("no more may be written after send_eof")
        if not data:
            return 0
        net, out = self._net, self._out
        room = net.window_bytes - out.size
        if room <= 0:
            net.world.sometimes("window full")
            raise BlockingIOError("the window is full")
        taken = net.cut_short(min(len(data), room))
        out.size += taken
        if not self._other.is_aborted:
            out.last_at = max(out.last_at, net.arrival())
            out.chunks.append((out.last_at, bytes(data[:taken])))
            self._other._wake_reader()
        elif self._other.is_vanished:
            self._reset_at = min(self._reset_at, net.world.now() + UNACKNOWLEDGED_S)
            self._wake()
        elif not self._link.is_hole:
            self._reset_at = min(self._reset_at, net.arrival() + net.latency())
            self._wake()
        return taken

    async def wait_writable(self) -> None:
        """Raises: OSError when the connection is gone; trio.BusyResourceError for a second waiter."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self._out.size < self._net.window_bytes:
                return
            if self._writable is not None:
                raise trio.BusyResourceError("another task waits to write")
            event = self._writable = trio.Event()
            try:
                with trio.CancelScope(deadline=self._reset_at if not self._link.is_hole else math.inf):
                    await event.wait()
            finally:
                if self._writable is event:
                    self._writable = None

    async def receive(self, max_bytes: int, /) -> bytes:
        """Raises: ConnectionError when the connection is gone; trio.BusyResourceError for a second receiver."""
        await trio.lowlevel.checkpoint()
        if self.sip_bytes is not None:
            max_bytes = min(max_bytes, self.sip_bytes)
            await trio.sleep(SIP_S)
        while True:
            self._check()
            due = math.inf
            if not self._link.is_hole:
                now, chunks = self._net.world.now(), self._in.chunks
                due = min(self._reset_at, chunks[0][0] if chunks else self._in.ends_at)
                if due <= now:
                    return self._take(max_bytes) if chunks else b""
            if self._readable is not None:
                raise trio.BusyResourceError("another task receives")
            event = self._readable = trio.Event()
            try:
                with trio.CancelScope(deadline=due):
                    await event.wait()
            finally:
                if self._readable is event:
                    self._readable = None

    def send_eof(self) -> None:
        """As `ports.Transport`."""
        if not self._has_ended and not self.is_aborted:
            self._has_ended = True
            self._out.ends_at = max(self._out.last_at, self._net.arrival())
            self._other._wake_reader()

    def abort(self) -> None:
        """As `ports.Transport`."""
        if self.is_aborted:
            return
        if self._in.chunks:
            self._other._reset_at = min(self._other._reset_at, self._net.arrival())
        else:
            self.send_eof()
        self._end()

    def vanish(self) -> None:
        """Its machine lost power: its own calls fail, and the other end is never told."""
        if not self.is_aborted:
            self.is_vanished = True
            self._end()

    # -- for SimulatedNetwork

    def kill(self) -> None:
        """The process behind this end is gone: its own calls fail, the other end is reset."""
        if not self.is_aborted:
            self._other._reset_at = min(self._other._reset_at, self._net.arrival())
            self._end()

    def reset(self) -> None:
        """Something between the two tore the connection."""
        now = self._net.world.now()
        for end in (self, self._other):
            end._reset_at = min(end._reset_at, now)
            end._wake()

    def healed(self) -> None:
        """The hole is gone."""
        if self._other.is_aborted and not self._other.is_vanished and self._out.size:  # what was sent meanwhile reached nobody
            self._reset_at = min(self._reset_at, self._net.arrival())
        self._wake()

    def _end(self) -> None:
        self.is_aborted = True
        self._link.ends.pop(self, None)
        self._in.chunks.clear()
        self._in.size = 0
        self._wake()
        self._other._wake()

    def _check(self) -> None:
        if self.is_aborted:
            raise BrokenPipeError("closed on this side")
        if self._reset_at <= self._net.world.now() and not self._link.is_hole:
            raise ConnectionResetError("the connection was reset")

    def _take(self, max_bytes: int) -> bytes:
        chunks = self._in.chunks
        at, data = chunks[0]
        taken = self._net.cut_short(min(len(data), max_bytes))
        if taken < len(data):
            chunks[0] = (at, memoryview(data)[taken:])
        else:
            chunks.popleft()
        self._in.size -= taken
        other = self._other
        if other._writable is not None:
            other._writable.set()
            other._writable = None
        return bytes(data[:taken])

    def _wake(self) -> None:
        self._wake_reader()
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def _wake_reader(self) -> None:
        if self._readable is not None:
            self._readable.set()
            self._readable = None


class SimulatedListener:
    """A `ports.Listener` at one host."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.url = f"http://{host}:8080"
        self.is_closed = False
        self._waiting: deque[SimulatedTransport] = deque()
        self._arrival = trio.Event()

    def arrive(self, transport: SimulatedTransport) -> None:
        """A connection was made."""
        self._waiting.append(transport)
        self._arrival.set()

    async def accept(self) -> SimulatedTransport:
        """Raises: OSError after `close`. Cancellation: nothing is lost."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self.is_closed:
                raise OSError("the listener is closed")
            self._arrival = trio.Event()
            await self._arrival.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        """As `ports.Listener`; what was not accepted is reset."""
        self.is_closed = True
        while self._waiting:
            self._waiting.popleft().kill()
        self._arrival.set()


class SimulatedNetwork:
    """All hosts, and what lies between them. `latency_s`: shortest and longest one way; most are short."""

    def __init__(
        self,
        world: World,
        *,
        latency_s: tuple[float, float] = (0.0005, 0.03),
        window_bytes: int = 65_536,
        cut_short: float = 0.1,
    ) -> None:
        """`cut_short`: the share of writes and reads that take only a part of what they could."""
        self.world = world
        self.window_bytes = window_bytes
        self._latency_s = latency_s
        self._cut_short = cut_short
        self._chance = world.rng("network")
        self._links: dict[tuple[str, str], _Link] = {}
        self._listeners: dict[str, SimulatedListener] = {}
        self._ports = 40_000

    def listen(self, host: str) -> SimulatedListener:
        """Take connections at `host`, instead of whoever did before."""
        listener = self._listeners[host] = SimulatedListener(host)
        return listener

    async def connect(self, source: str, host: str) -> SimulatedTransport:
        """A connection from `source`; waits while there is a hole. Raises: ConnectionRefusedError."""
        link = self._link(source, host)
        await trio.sleep(self.latency() * 2)
        while link.is_hole:
            if link.healed is None:
                link.healed = trio.Event()
            await link.healed.wait()
        listener = self._listeners.get(host)
        if listener is None or listener.is_closed:
            raise ConnectionRefusedError(f"nobody listens at {host}")
        self._ports += 1
        near = SimulatedTransport(self, link, host=source, peer=f"{host}:8080")
        far = SimulatedTransport(self, link, host=host, peer=f"{source}:{self._ports}")
        near.join(far)
        link.ends[near] = link.ends[far] = None
        listener.arrive(far)
        return near

    # -- faults

    def hole(self, a: str, b: str) -> None:
        """Nothing arrives between these two until `heal`."""
        self._link(a, b).is_hole = True

    def heal(self, a: str, b: str) -> None:
        """What was held up arrives now."""
        link = self._link(a, b)
        if link.is_hole:
            link.is_hole = False
            for end in list(link.ends):
                end.healed()
            if link.healed is not None:
                link.healed.set()
                link.healed = None

    def heal_all(self) -> None:
        for a, b in list(self._links):
            self.heal(a, b)

    def reset(self, a: str, b: str) -> int:
        """Tear every connection between these two; how many ends there were."""
        ends = list(self._link(a, b).ends)
        for end in ends:
            end.reset()
        return len(ends)

    def kill(self, host: str) -> None:
        """The process at `host` is gone, with all its connections."""
        listener = self._listeners.pop(host, None)
        if listener is not None:
            listener.close()
        for end in [end for link in self._links.values() for end in link.ends if end.host == host]:
            end.kill()

    # -- for the transports

    def latency(self) -> float:
        shortest, longest = self._latency_s
        return shortest + (longest - shortest) * self._chance.random() ** 3

    def arrival(self) -> float:
        """When something that is sent now arrives."""
        return self.world.now() + self.latency()

    def cut_short(self, size: int) -> int:
        """How much of it is taken in one call."""
        if size > 1 and self._chance.random() < self._cut_short:
            return self._chance.randint(1, size)
        return size

    def open_at(self, host: str) -> int:
        """Connections that `host` has not closed."""
        return sum(end.host == host for link in self._links.values() for end in link.ends)

    def _link(self, a: str, b: str) -> _Link:
        key = (a, b) if a < b else (b, a)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = _Link()
        return link
