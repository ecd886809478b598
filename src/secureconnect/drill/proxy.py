"""A TCP proxy between us and a server that breaks the line between them: slow, silent, reset, refused, accepted and mute.

    async with FaultProxy("127.0.0.1", 6379) as line:
        ...                     # connect to line.port
        line.slow(3.0)          # every chunk 3 s later, each way's throughput kept
        line.blackhole()        # connections stay open, nothing moves; what was sent arrives after heal()
        line.reset()            # all present connections end with RST
        line.refuse()           # nobody listens; present connections go on
        line.mute()             # new connections are accepted and never answered
        await line.heal()

Each verb acts on the whole line; `links` has the present connections, for who wants to break one (`link.reset()`,
`link.blackhole()`). A direction is `UP` (client to server) or `DOWN`. Bytes are never changed or reordered.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from anyio import AsyncContextManagerMixin

UP: Final = "up"
DOWN: Final = "down"
CHUNK_BYTES: Final = 65_536
HELD_BYTES_MAX: Final = 8 << 20
"""In one direction of one link, on the way; then its sender meets back-pressure, as on a long line."""
BACKLOG: Final = 512
_RST: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, 0 s: close sends a reset."""

_Torn = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass(slots=True)
class Way:
    """One direction: what is done to its bytes."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    is_hole: bool = False
    moved_bytes: int = 0


@dataclass(eq=False, slots=True)
class Link:
    """One connection through the proxy. `holes`: directions in which this one alone is silent."""

    number: int
    client: trio.SocketStream
    server: trio.SocketStream | None = None
    holes: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """End both sides with a reset, now."""
        for stream in (self.client, self.server):
            if stream is not None:
                with suppress(*_Torn):
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
                    stream.socket.close()

    def blackhole(self, *ways: str) -> None:
        """Nothing moves in these directions, both without any, until the line is healed."""
        self.holes.update(ways or (UP, DOWN))


class FaultProxy(AsyncContextManagerMixin):
    """The line to one server. `port`, on loopback, stays the same through refusals; inside the block it is listened to."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.ways = {UP: Way(), DOWN: Way()}
        self.links: dict[int, Link] = {}
        self.accepted = 0
        self._target = host, port
        self._is_mute = False
        self._changed = trio.Event()
        self._listening: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[FaultProxy]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._listen)
            yield self
            nursery.cancel_scope.cancel()

    # -- what can be broken
    def slow(self, latency_s: float, *, bytes_per_s: float | None = None) -> None:
        """What leaves the server arrives that much later; the throughput is kept, or limited both ways."""
        self.ways[DOWN].latency_s = latency_s
        for way in self.ways.values():
            way.bytes_per_s = bytes_per_s

    def blackhole(self, *directions: str) -> None:
        """Nothing moves any more, in both directions without any; new connections too."""
        for direction in directions or (UP, DOWN):
            self.ways[direction].is_hole = True

    def reset(self) -> None:
        """Every present connection ends with a reset."""
        for link in list(self.links.values()):
            link.reset()

    def refuse(self) -> None:
        """Nobody listens; who connects is refused. Present connections go on: `reset` ends them."""
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def mute(self) -> None:
        """Who connects from now on is accepted and never answered, until the line is healed."""
        self._is_mute = True

    async def heal(self) -> None:
        """All is well: what was held goes on its way, and the port is listened to again. Raises: OSError, it was taken."""
        for way in self.ways.values():
            way.latency_s, way.bytes_per_s, way.is_hole = 0.0, None, False
        for link in self.links.values():
            link.holes.clear()
        self._is_mute = False
        self._tell()
        if self._listening is None:
            assert self._nursery is not None, "only inside the block"
            await self._nursery.start(self._listen)

    # -- how it works
    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1", backlog=BACKLOG)
        listener = listeners[0]
        self.port = listener.socket.getsockname()[1]
        with trio.CancelScope() as self._listening:
            async with listener:
                task_status.started()
                while True:
                    client = await listener.accept()
                    self.accepted += 1
                    assert self._nursery is not None
                    self._nursery.start_soon(self._serve, Link(self.accepted, client))

    async def _serve(self, link: Link) -> None:
        self.links[link.number] = link
        try:
            async with link.client:
                await self._join(link)
        finally:
            del self.links[link.number]

    async def _join(self, link: Link) -> None:
        try:
            while self._is_mute:
                await self._changed.wait()
            link.server = await trio.open_tcp_stream(*self._target)
            async with link.server, trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, link, link.client, link.server, UP)
                nursery.start_soon(self._carry, link, link.server, link.client, DOWN)
        except* _Torn:
            link.reset()  # one side is gone, or the server is: so it looks from the other

    async def _carry(self, link: Link, source: trio.SocketStream, target: trio.SocketStream, direction: str) -> None:
        """One direction of one link, until its end, which is handed on as such."""
        way, held = self.ways[direction], _Held()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.fill, source, way)
            while True:
                due_s, data = await held.take()
                await trio.sleep_until(due_s)
                while way.is_hole or direction in link.holes:
                    await self._changed.wait()
                if not data:
                    await target.send_eof()
                    return
                await target.send_all(data)
                way.moved_bytes += len(data)
                if way.bytes_per_s:
                    await trio.sleep(len(data) / way.bytes_per_s)


class _Held:
    """Chunks on their way in one direction, each with the time at which it arrives."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._moved = trio.Event()

    async def fill(self, source: trio.SocketStream, way: Way) -> None:
        """Until the end of the stream, which is the empty chunk."""
        while True:
            while self._bytes > HELD_BYTES_MAX:
                await self._moved.wait()
            data = bytes(await source.receive_some(CHUNK_BYTES))
            self._chunks.append((trio.current_time() + way.latency_s, data))
            self._bytes += len(data)
            self._tell()
            if not data:
                return

    async def take(self) -> tuple[float, bytes]:
        while not self._chunks:
            await self._moved.wait()
        due_s, data = self._chunks.popleft()
        self._bytes -= len(data)
        self._tell()
        return due_s, data

    def _tell(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
