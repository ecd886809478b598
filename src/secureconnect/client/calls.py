"""Calls under way on one socket, without I/O: each gets its answer, the server's refusal, or the end of the connection.

A frame the server cannot read is answered with `"id": null`, at once, while answers to earlier frames may still be under way. So
which call it was shows itself: the one that is left when the others that were in flight have their answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio

from secureconnect.client.errors import ClientError, NotConnected, NotSendable, ServerRefused

Json: TypeAlias = Any
"""What the server's JSON holds: the operation's own result."""
TOO_BIG = 1009
"""The close code of who was sent more than it takes (RFC 6455 §7.4.1)."""


def encode(body: object, *, bytes_max: int | None = None) -> bytes:
    """`body` as the JSON that servers read: UTF-8, no NaN. Raises: NotSendable; also for more than `bytes_max` bytes."""
    try:
        text = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise NotSendable("VALIDATION_ERROR", f"this cannot be written as JSON: {error}") from error
    if bytes_max is not None and len(text) > bytes_max:
        raise NotSendable("TOO_LARGE", f"{len(text)} bytes, and the server takes {bytes_max} in one message")
    return text


@dataclass(eq=False, slots=True)
class Call:
    """One call. `done` is set when it has a `result` or an `error`."""

    number: str
    size: int = 0
    done: anyio.Event = field(default_factory=anyio.Event)
    result: Json = None
    error: ClientError | None = None

    def settle(self, *, result: Json = None, error: ClientError | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()


class Calls:
    """The calls in flight, by number, in the order in which they were made."""

    def __init__(self) -> None:
        self._numbers = 0
        self._in_flight: dict[str, Call] = {}
        self._unclaimed: list[ServerRefused] = []
        self._suspects: dict[str, None] = {}

    def begin(self) -> Call:
        self._numbers += 1
        call = Call(f"c{self._numbers}")
        self._in_flight[call.number] = call
        return call

    def end(self, call: Call) -> None:
        """Nobody waits for it any more. Given up before its answer, it leaves open who was meant by `"id": null`."""
        if self._in_flight.pop(call.number, None) is not None and call.number in self._suspects:
            self._unclaimed.clear()
            self._suspects.clear()

    def answered(self, frame: Mapping[str, Any]) -> None:
        """A frame that is no event."""
        refused = ServerRefused(frame["error"]) if "error" in frame else None
        if frame.get("id") is None and refused is not None:
            self._unclaimed.append(refused)
            self._suspects |= dict.fromkeys(self._in_flight)
            self._claim()
        elif (call := self._in_flight.get(str(frame.get("id")))) is not None:
            del self._in_flight[call.number]
            self._suspects.pop(call.number, None)
            call.settle(result=frame.get("result"), error=refused)
            self._claim()

    def lost(self, code: int, reason: str = "") -> None:
        """The connection ended. With 1009 the largest frame under way was too big for somebody; the others may be sent again."""
        calls, self._in_flight = self._in_flight, {}
        self._unclaimed.clear()
        self._suspects.clear()
        largest = max(calls.values(), key=lambda call: call.size, default=None) if code == TOO_BIG else None
        for call in calls.values():
            if call is largest:
                call.settle(error=NotSendable("TOO_LARGE", f"the connection was closed because of {call.size} bytes"))
            else:
                call.settle(error=NotConnected(f"the connection ended before the answer: {code} {reason}".rstrip()))

    def _claim(self) -> None:
        if self._unclaimed and len(self._suspects) <= len(self._unclaimed):
            for number, error in zip(self._suspects, self._unclaimed, strict=False):
                self._in_flight.pop(number).settle(error=error)
            self._suspects.clear()
            self._unclaimed.clear()
