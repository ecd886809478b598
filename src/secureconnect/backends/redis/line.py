"""The requests of one connection that have no answer yet. Pure: it knows neither socket nor time.

Theory. Redis answers in the order it was asked and puts no number on an answer, so an answer belongs to the request that was sent
first and has none. Three things could shift that by one, and then everybody gets somebody else's answer:

- A caller leaves. What was not sent yet is forgotten; what was sent keeps its place, and its answer is dropped when it comes.
- A subscription is not answered by a reply but by one push for each topic, or by a single error. It stands in line like any
  request, counts its pushes, and is done with the last one.
- The server says more than it was asked. Then nothing can be told apart any more: `OutOfStep`, and the connection ends.

The line is bounded, in requests and in bytes, those included whose callers have left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio
import hiredis

from secureconnect.errors import Overloaded

from .replies import NAME, Reply


class OutOfStep(Exception):
    """An answer that nobody asked for."""


@dataclass(eq=False, slots=True)
class Request:
    """One command. `data`: its bytes. `confirmations`: the pushes that answer it in place of a reply."""

    data: bytes
    confirmations: int = 0
    reply: Reply | hiredis.ReplyError = None
    is_sent: bool = False
    is_abandoned: bool = False
    """Its caller has left."""
    is_lost: bool = False
    """The connection ended before the answer."""
    answered: anyio.Event = field(default_factory=anyio.Event)
    """Set when the answer is there, or will not come any more."""


class Line:
    """Who waits, in order."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.bytes = 0
        self.dropped_total = 0
        """Answers that came after their caller had left."""
        self._count_max, self._bytes_max = count_max, bytes_max
        self._unsent: deque[Request] = deque()
        self._sent: deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._unsent) + len(self._sent)

    @property
    def oldest(self) -> Request | None:
        """The one whose answer comes next, of those that were sent."""
        return self._sent[0] if self._sent else None

    def enter(self, request: Request) -> None:
        """Stand at the end. Raises: Overloaded; nothing was or will be sent."""
        if len(self) >= self._count_max or self.bytes + len(request.data) > self._bytes_max:
            raise Overloaded(f"{NAME}: too much waits for its answers", details={"dependency": NAME})
        self._unsent.append(request)
        self.bytes += len(request.data)

    def take(self) -> bytes:
        """What is to be written now; b"": nothing. From here on the server may do it."""
        parts = []
        for request in self._unsent:
            if request.is_abandoned:
                self.bytes -= len(request.data)
                continue
            request.is_sent = True
            parts.append(request.data)
            self._sent.append(request)
        self._unsent.clear()
        return b"".join(parts)

    def answer(self, reply: Reply | hiredis.ReplyError) -> None:
        """A reply came. Raises: OutOfStep."""
        if not self._sent:
            raise OutOfStep(
                f"a reply to no request ({reply})" if isinstance(reply, hiredis.ReplyError) else "a reply to no request"
            )
        if self._sent[0].confirmations and not isinstance(reply, hiredis.ReplyError):
            raise OutOfStep("a reply in place of a confirmation")
        self._settle(reply)

    def confirm(self) -> None:
        """The server confirmed one topic of a subscription. Raises: OutOfStep."""
        if not self._sent or not self._sent[0].confirmations:
            raise OutOfStep("a confirmation of no request")
        self._sent[0].confirmations -= 1
        if not self._sent[0].confirmations:
            self._settle(None)

    def lose(self) -> None:
        """No more answers will come."""
        for request in self._drain():
            request.is_lost = True
            request.answered.set()

    def _settle(self, reply: Reply | hiredis.ReplyError) -> None:
        request = self._sent.popleft()
        self.bytes -= len(request.data)
        self.dropped_total += request.is_abandoned
        request.reply = reply
        request.answered.set()

    def _drain(self) -> Iterator[Request]:
        self.bytes = 0
        for requests in (self._sent, self._unsent):
            while requests:
                yield requests.popleft()
