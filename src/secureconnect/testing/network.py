"""Connections in memory that behave like the kernel's where it hurts: bounded windows, short writes, half close, resets.

`memory_pair()` gives the two ends of one connection, both a `ports.Transport`. No latency and no loss: bytes are at the other
end at once, so tests on them need no clock. What is modelled of TCP:

* each direction holds at most `window_bytes` unread bytes; `send_now` takes what fits, BlockingIOError when nothing does;
* `send_eof` ends one direction, the other goes on (half close);
* `abort` with everything read is an orderly end: the peer reads the rest, then b"". `abort` over unread bytes is a reset, as in
  the kernel: the peer loses what it has not read and gets ConnectionResetError. So who closes after an early refusal must
  drain first, or the refusal is lost.
"""

from __future__ import annotations

from collections import deque

import trio

WINDOW_BYTES = 65_536
"""Unread bytes a direction holds: the order of a kernel's socket buffers."""


class _Pipe:
    """One direction. `wake` is set when bytes, room or an end arrive; whoever waits replaces it."""

    __slots__ = ("data", "ended", "most_per_send", "readable", "reset", "window_bytes", "writable")

    def __init__(self, window_bytes: int, most_per_send: int | None) -> None:
        self.data = bytearray()
        self.window_bytes = window_bytes
        self.most_per_send = most_per_send
        self.ended = False  # no more will be written
        self.reset = False  # what was unread is lost
        self.readable: trio.Event | None = None
        self.writable: trio.Event | None = None

    def wake(self) -> None:
        for event in (self.readable, self.writable):
            if event is not None:
                event.set()
        self.readable = self.writable = None

    def tear(self) -> None:
        self.data.clear()
        self.ended = self.reset = True
        self.wake()


class MemoryTransport:
    """One end of a connection in memory; see the module for what it models. Made by `memory_pair`."""

    def __init__(self, inbound: _Pipe, outbound: _Pipe, peer: str) -> None:
        self.peer = peer
        self.aborted = False
        self._in = inbound
        self._out = outbound

    @property
    def unread_bytes(self) -> int:
        """What has arrived here and was not received."""
        return len(self._in.data)

    @property
    def unsent_bytes(self) -> int:
        """What was sent from here and the peer has not received."""
        return len(self._out.data)

    @property
    def peer_ended(self) -> bool:
        """Whether the peer will send no more, by half close, close or reset."""
        return self._in.ended

    def send_now(self, data: bytes | memoryview, /) -> int:
        """Raises: BlockingIOError when the window is full; BrokenPipeError, ConnectionResetError when the connection is gone."""
        self._check_writable()
        if not data:
            return 0
        out = self._out
        room = out.window_bytes - len(out.data)
        if room <= 0:
            raise BlockingIOError("the window is full")
        taken = min(len(data), room, out.most_per_send or room)
        out.data += data[:taken]
        if out.readable is not None:
            out.readable.set()
            out.readable = None
        return taken

    async def wait_writable(self) -> None:
        """Raises: OSError when the connection is gone; trio.BusyResourceError for a second waiter.

        Cancellation: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        out = self._out
        while True:
            self._check_writable()
            if len(out.data) < out.window_bytes:
                return
            if out.writable is not None:
                raise trio.BusyResourceError("another task waits to write")
            event = out.writable = trio.Event()
            try:
                await event.wait()
            finally:
                if out.writable is event:
                    out.writable = None

    async def receive(self, max_bytes: int, /) -> bytes:
        """Raises: ConnectionError when the connection is gone; trio.BusyResourceError for a second receiver.

        Cancellation: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        pipe = self._in
        while True:
            if self.aborted:
                raise ConnectionAbortedError("closed on this side")
            if pipe.data:
                return self._take(max_bytes)
            if pipe.reset:
                raise ConnectionResetError("the peer reset the connection")
            if pipe.ended:
                return b""
            if pipe.readable is not None:
                raise trio.BusyResourceError("another task receives")
            event = pipe.readable = trio.Event()
            try:
                await event.wait()
            finally:
                if pipe.readable is event:
                    pipe.readable = None

    def send_eof(self) -> None:
        """No more will be written (half close). Idempotent."""
        self._out.ended = True
        self._out.wake()

    def abort(self) -> None:
        """Close now: a reset if bytes are unread here, else an orderly end. Idempotent."""
        if self.aborted:
            return
        self.aborted = True
        if self._in.data:
            self._out.tear()
        self._out.ended = True
        self._out.wake()
        self._in.tear()

    def _take(self, max_bytes: int) -> bytes:
        pipe = self._in
        data = bytes(pipe.data[:max_bytes])
        del pipe.data[:max_bytes]
        if pipe.writable is not None:
            pipe.writable.set()
            pipe.writable = None
        return data

    def _check_writable(self) -> None:
        if self.aborted:
            raise BrokenPipeError("closed on this side")
        if self._out.reset:
            raise ConnectionResetError("the peer closed the connection")
        if self._out.ended:
            raise BrokenPipeError("no more may be written after send_eof")


def memory_pair(
    *,
    window_bytes: int = WINDOW_BYTES,
    most_per_send: int | None = None,
    client: str = "192.0.2.1:40000",
    server: str = "192.0.2.2:8080",
) -> tuple[MemoryTransport, MemoryTransport]:
    """A connection's two ends: (client's, server's). `client` and `server` are their addresses, seen by the other as `peer`.

    `most_per_send`: the most bytes that one `send_now` takes (None: what the window holds), to force short writes.
    """
    up, down = _Pipe(window_bytes, most_per_send), _Pipe(window_bytes, most_per_send)
    return MemoryTransport(down, up, server), MemoryTransport(up, down, client)


class MemoryListener:
    """A `ports.Listener` in memory: `connect()` gives a client's end and makes the other one come out of `accept()`."""

    def __init__(self, *, url: str = "http://192.0.2.2:8080", window_bytes: int = WINDOW_BYTES) -> None:
        self.url = url
        self.closed = False
        self._window_bytes = window_bytes
        self._waiting: deque[MemoryTransport] = deque()
        self._arrival = trio.Event()
        self._count = 0

    def connect(self, *, most_per_send: int | None = None) -> MemoryTransport:
        """Raises: ConnectionRefusedError after `close`."""
        if self.closed:
            raise ConnectionRefusedError("nobody listens")
        self._count += 1
        client, server = memory_pair(
            window_bytes=self._window_bytes,
            most_per_send=most_per_send,
            client=f"192.0.2.1:{40_000 + self._count % 20_000}",
        )
        self._waiting.append(server)
        self._arrival.set()
        return client

    async def accept(self) -> MemoryTransport:
        """Raises: OSError after `close`. Cancellation: nothing is lost."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self.closed:
                raise OSError("the listener is closed")
            self._arrival = trio.Event()
            await self._arrival.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        """Take no more connections; those not yet accepted are reset. Idempotent."""
        self.closed = True
        while self._waiting:
            self._waiting.popleft().abort()
        self._arrival.set()
