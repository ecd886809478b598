"""One task that watches every socket's clock: pings, idleness, token expiry, the ends of handshakes.

A timer task per socket would double what an idle socket costs. Here a socket stands in one bucket, a quarter of a second wide,
under the earliest moment at which something may be due; when its time comes the socket says itself what is due and when to
come again. Traffic does not touch the buckets: it only moves a time that the next visit reads. So a silent socket is visited once
in 25 s.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol

import trio

TICKS_PER_S = 4
"""Width of a bucket: a deadline is up to 0.25 s late, and the task wakes at most four times a second."""
VISITS_PER_TURN = 256
"""Then the loop breathes."""


class Timed(Protocol):
    """Something with deadlines. `tick` belongs to `Timers`: the bucket it stands in, 0 for none."""

    tick: int

    def due(self, now_s: float) -> float:
        """Do what is due at `now_s`; return the next time something may be (`math.inf`: never). Never raises."""
        ...


class Timers:
    """The buckets and the task that empties them. Times are the event loop's (`trio.current_time`)."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._ticks: list[int] = []  # a heap of the buckets' numbers
        self._earlier = trio.Event()

    def at(self, when_s: float, item: Timed) -> None:
        """Visit `item` at `when_s` or before; an earlier visit that is already arranged stays, and arranges the next."""
        if when_s == math.inf:
            return
        tick = max(1, math.ceil(when_s * TICKS_PER_S))  # 0 means none, and a virtual clock begins there
        if item.tick:
            if item.tick <= tick:
                return
            self.forget(item)
        item.tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._earlier.set()
        bucket[item] = None

    def forget(self, item: Timed) -> None:
        """Never visit it again. Idempotent."""
        bucket = self._buckets.get(item.tick)
        if bucket is not None:
            bucket.pop(item, None)
        item.tick = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._ticks:
                await self._earlier.wait()
            self._earlier = trio.Event()
            with trio.move_on_at(self._ticks[0] / TICKS_PER_S):
                await self._earlier.wait()
                continue
            await self._visit(heapq.heappop(self._ticks))

    async def _visit(self, tick: int) -> None:
        bucket = self._buckets.pop(tick)
        for count, item in enumerate(bucket, 1):
            if item.tick == tick:  # else it was forgotten, or moved, during a breath
                item.tick = 0
                self.at(max(item.due(trio.current_time()), (tick + 1) / TICKS_PER_S), item)
            if count % VISITS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
