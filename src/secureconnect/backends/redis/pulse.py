"""Is the other side alive? Pure: it is told of every tick of a clock, not of the time.

A frozen server goes on accepting connections and bytes; only its silence shows. So the oldest request without an answer is
watched, and on a quiet connection, a subscriber's above all, one is made for the purpose. Age is counted in ticks, each of which
the connection got to see: when it is this process that stood still, that was one tick, however long it was.
"""

from __future__ import annotations

from typing import Literal

from .line import Request

TICKS = 4
"""To a verdict: the same request unanswered at so many ticks after the one that saw it first, or nothing heard for so many."""

Verdict = Literal["alive", "quiet", "dead"]


class Pulse:
    """Of one connection."""

    def __init__(self) -> None:
        self._oldest: Request | None = None
        self._waited = 0
        self._heard = 0
        self._quiet = 0

    def tick(self, oldest: Request | None, *, heard: int) -> Verdict:
        """`oldest`: the request whose answer comes next. `heard`: grows whenever the other side has said something.

        Quiet: nobody waits for anything, so ask it something.
        """
        if oldest is not None and oldest is self._oldest:
            self._waited += 1
        else:
            self._oldest, self._waited = oldest, 0
        if self._waited >= TICKS:
            return "dead"
        if oldest is not None or heard != self._heard:
            self._heard, self._quiet = heard, 0
            return "alive"
        self._quiet += 1
        return "quiet" if self._quiet >= TICKS else "alive"
