"""A sink in front of a framework's connection: a bounded queue, and one task that awaits the framework's send.

    async with QueueSink(websocket.send_text) as sink:
        peer = hub.connect(sink)
        await peer.prepare("room:1")
        peer.start(["room:1"])
        async for text in websocket.iter_text(): ...

For asyncio and trio. Leaving the block closes the peer. When the client is too slow or gone, the block is cancelled and ends
quietly; `sink.reason` says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio import AsyncContextManagerMixin

from .frame import Frame
from .limits import Limits

if TYPE_CHECKING:
    from .peer import Peer


CLOSED = (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What the usual transports raise when the other side is gone."""


class QueueSink(AsyncContextManagerMixin):
    """`send_text` sends one message. `closed_by`: what it raises when the client is gone; anything else goes through the block.

    Ephemeral frames are refused when the queue is half full, and replace those of the same `coalesce` word that wait
    (`coalesces` says whether). One message that is not taken within `Limits.write_wait_s` ends the block.
    """

    def __init__(
        self, send_text: Callable[[str], Awaitable[object]], limits: Limits | None = None, *,
        closed_by: tuple[type[Exception], ...] = CLOSED, coalesces: bool = True,
    ) -> None:  # fmt: skip
        self.reason: str | None = None
        """Why the block was ended from inside: `slow_consumer`, `disconnected`; None: it was not."""
        self.coalesces = coalesces
        self.peer: Peer | None = None
        self._send_text = send_text
        self._limits = limits or Limits()
        self._closed_by = closed_by
        self._frames: deque[_Waiting] = deque()
        self._keys: dict[tuple[str, str], _Waiting] = {}
        self._bytes = 0
        self._is_open = True
        self._more: anyio.Event | None = None
        self._less: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def attach(self, peer: Peer) -> None:
        """Called by `Hub.connect`."""
        self.peer = peer

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._frames)

    # -- as Sink

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        if not self._is_open or not self._fits(frames, 2 if droppable else 1):
            return False
        for frame in frames:
            self._put(frame, droppable=droppable)
        if self._more is not None:
            self._more.set()
            self._more = None
        return True

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        while not (self._is_open and self._fits(frames, 1)):
            self._less = anyio.Event()
            await self._less.wait()

    def hang_up(self, reason: str) -> None:
        if self._is_open:
            self.reason = reason
            self._is_open = False
            if self._scope is not None:
                self._scope.cancel()

    # -- the block

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[QueueSink]:
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            tasks.start_soon(self._write)
            try:
                yield self
            finally:
                self._is_open = False
                if self.peer is not None:
                    self.peer.close()
                tasks.cancel_scope.cancel()

    async def _write(self) -> None:
        """Task: one message after the other. Cancellation: a message may have been sent in part; the connection is over then."""
        try:
            while self._is_open:
                if not self._frames:
                    self._more = anyio.Event()
                    await self._more.wait()
                elif not await self._send(self._take()):
                    self.hang_up("slow_consumer")
        except self._closed_by:
            self.hang_up("disconnected")

    async def _send(self, frame: Frame) -> bool:
        with anyio.move_on_after(self._limits.write_wait_s):
            await self._send_text(frame.text)
            if self.peer is not None:
                self.peer.delivered(1)
            return True
        return False

    # -- the queue

    def _fits(self, frames: Sequence[Frame], share: int) -> bool:
        """An empty queue takes anything, or a large message could never leave."""
        if not self._frames:
            return True
        size = self._bytes + sum(len(frame.payload) for frame in frames)
        count = len(self._frames) + len(frames)
        return count * share <= self._limits.outbox_messages_max and size * share <= self._limits.outbox_bytes_max

    def _put(self, frame: Frame, *, droppable: bool) -> None:
        key = (frame.channel, frame.coalesce) if droppable and self.coalesces and frame.coalesce is not None else None
        self._bytes += len(frame.payload)
        older = self._keys.get(key) if key is not None else None
        if older is not None:
            self._bytes -= len(older.frame.payload)
            older.frame = frame
            if self.peer is not None:
                self.peer.dropped(1)
            return
        waiting = _Waiting(frame, key)
        self._frames.append(waiting)
        if key is not None:
            self._keys[key] = waiting

    def _take(self) -> Frame:
        waiting = self._frames.popleft()
        if waiting.key is not None:
            self._keys.pop(waiting.key, None)
        self._bytes -= len(waiting.frame.payload)
        if self._less is not None:
            self._less.set()
            self._less = None
        return waiting.frame


class _Waiting:
    """A message in the queue; `key` when a newer one may take its place."""

    __slots__ = ("frame", "key")

    def __init__(self, frame: Frame, key: tuple[str, str] | None) -> None:
        self.frame = frame
        self.key = key
