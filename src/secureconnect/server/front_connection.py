"""One HTTP connection's reading, writing and clocks; what is read and written is decided in `front`.

One cancel scope bounds the whole connection and its deadline moves with the phase: idle, head, body, and none while an answer is
made (dispatch bounds that). Moving it costs 1.7 µs, a new scope for each wait 4.6, so it is left alone where it is right
within `IDLE_SLACK_S`: a busy connection moves it every few seconds, not twice per request.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import trio

from secureconnect.ports import Transport
from secureconnect.server.front_body import Body
from secureconnect.server.front_parser import Inbox
from secureconnect.server.message import Head

T = TypeVar("T")
Phase = Literal["idle", "head", "body", "answer"]

READ_BYTES = 65_536
AHEAD_BYTES_MAX = 65_536
"""What may arrive of later requests while a poll runs and we read only to see the peer leave; then the reading stops."""
IDLE_SLACK_S = 5.0
"""An idle connection may be closed this much early."""
HALF_CLOSED_S = 5.0
"""How long a peer that has ended its side is taken to be there still: it may only have nothing more to ask (RFC 9112 §9.6 lets it
half-close), and looks the same as one that is gone until something is written to it."""
GOODBYE_BYTES_MAX = 1 << 20
"""What a peer may still send after our last word before it is cut off."""


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Bounds of the HTTP face; the numbers are failure-policy.md §1 and the settings of the same names."""

    connections_max: int = 10_000
    body_bytes_max: int = 1 << 20
    head_deadline_s: float = 10.0
    """From a request's first byte to the end of its head."""
    idle_s: float = 75.0
    """Between two requests; above the 60 s after which usual proxies drop theirs, so that they never use a dying one."""
    body_deadline_s: float = 30.0
    body_progress_s: float = 10.0
    write_deadline_s: float = 10.0
    """Without progress."""
    request_deadline_s: float = 30.0
    goodbye_s: float = 2.0
    """For the peer to read our last answer and close."""


class Connection:
    """A transport with an inbox and a clock. `busy`, `next_head`, … must run inside `with connection.scope`."""

    __slots__ = ("_deadline_s", "_limits", "inbox", "is_answering", "phase", "scope", "transport")

    def __init__(self, transport: Transport, limits: FrontLimits) -> None:
        self.transport = transport
        self.inbox = Inbox()
        self.scope = trio.CancelScope()
        self.phase: Phase = "idle"
        self.is_answering = False
        """Part of an answer is out and part is not: nothing else may be written."""
        self._limits = limits
        self._deadline_s = math.inf

    async def next_head(self) -> Head | None:
        """None: the peer will send no more. Raises: Malformed, HeadTooLarge; OSError when the connection is gone."""
        inbox = self.inbox
        if len(inbox):
            await trio.lowlevel.checkpoint()  # whoever pipelines takes turns with the others
            head = inbox.head()
            if head is not None:
                self.phase = "answer"
                return head
        self.phase = "idle"
        now_s = trio.current_time()
        self._move(now_s + self._limits.idle_s, slack_s=min(IDLE_SLACK_S, self._limits.idle_s / 10))
        while True:
            if self.phase == "idle" and inbox.begun:
                self.phase = "head"
                self._move(trio.current_time() + self._limits.head_deadline_s)
            data = await self._receive()
            if not data:
                return None
            inbox.feed(data)
            head = inbox.head()
            if head is not None:
                self.phase = "answer"
                return head

    async def whole(self, body: Body) -> bytes:
        """All of `body`. Raises: Malformed, TooLarge; OSError when the connection is gone."""
        first = body.pull(self.inbox)
        if body.done:
            return first
        pieces = [first]
        ends_s = trio.current_time() + self._limits.body_deadline_s
        while not body.done:
            pieces.append(await self.more(body, ends_s))
        return b"".join(pieces)

    async def more(self, body: Body, ends_s: float) -> bytes:
        """The next piece of `body`, which may be empty; all of it must be here by `ends_s`. Raises: as `whole`."""
        piece = body.pull(self.inbox)
        if body.done or (piece and not body.is_paused):
            return piece
        self.phase = "body"
        self._move(min(ends_s, trio.current_time() + self._limits.body_progress_s))
        if body.is_paused:
            await trio.lowlevel.checkpoint()  # a read may hold thousands of chunks
            return piece
        data = await self._receive()
        if not data:
            raise ConnectionResetError("the body was cut off")
        self.inbox.feed(data)
        return body.pull(self.inbox)

    def busy(self, bound_s: float) -> None:
        """An answer is being made; that takes at most `bound_s` by somebody else's clock (infinity: no bound)."""
        self.phase = "answer"
        if self._deadline_s < trio.current_time() + bound_s:
            self._move(math.inf)

    async def write(self, data: bytes) -> None:
        """Raises: OSError when the connection is gone, or the peer took nothing for `write_deadline_s` (it is aborted then)."""
        try:
            sent = self.transport.send_now(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._write_rest(memoryview(data)[sent:])

    async def while_there(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` returns, or None when the peer left before; `work` is cancelled then. What it sends meanwhile is kept."""
        result: T | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
            result = await work()
            nursery.cancel_scope.cancel()
        return result

    async def watch(self) -> bool:
        """Return True when the peer has left; False when it sent so much ahead that we cannot see it leave.

        A reset is a leaving at once, an end of its bytes only after `HALF_CLOSED_S`.
        """
        while len(self.inbox) < AHEAD_BYTES_MAX:
            try:
                data = await self.transport.receive(READ_BYTES)
            except OSError:
                return True
            if not data:
                await trio.sleep(HALF_CLOSED_S)
                return True
            self.inbox.feed(data)
        return False

    async def goodbye(self) -> None:
        """End so that the last answer arrives: closing over unread bytes would be a reset, which destroys it on its way."""
        self.transport.send_eof()
        dropped = 0
        with trio.move_on_after(self._limits.goodbye_s):
            while dropped < GOODBYE_BYTES_MAX:
                try:
                    data = await self.transport.receive(READ_BYTES)
                except OSError:
                    return
                if not data:
                    return
                dropped += len(data)

    def _move(self, deadline_s: float, *, slack_s: float = 0.0) -> None:
        if not deadline_s - slack_s <= self._deadline_s <= deadline_s:
            self._deadline_s = self.scope.deadline = deadline_s

    async def _receive(self) -> bytes:
        data = await self.transport.receive(READ_BYTES)
        if self.scope.cancel_called:
            await (
                trio.lowlevel.checkpoint()
            )  # too late by a moment: raises Cancelled, so that nothing begins that would be halved
        return data

    async def _write_rest(self, rest: memoryview) -> None:
        self._move(math.inf)
        while rest:
            with trio.move_on_after(self._limits.write_deadline_s) as scope:
                rest = rest[await self._write_some(rest) :]
            if scope.cancelled_caught:
                self.transport.abort()
                raise ConnectionAbortedError(f"the peer took nothing for {self._limits.write_deadline_s:g} s")

    async def _write_some(self, rest: memoryview) -> int:
        while True:
            await self.transport.wait_writable()
            try:
                return self.transport.send_now(rest)
            except BlockingIOError:
                continue

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        if await self.watch():
            scope.cancel()
