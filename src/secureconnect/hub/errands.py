"""What synchronous code asks for and tasks do: short work in the hub's own task group, and calls at a time.

Work that is asked for before `run` begins is done when it does. Both are started from the hub's task, so what they do carries
nothing of the request that happened to ask.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import anyio

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Errands:
    """Bounded by whoever asks: one piece of work per feed, per peer, per digest."""

    def __init__(self) -> None:
        self._todo: list[Work] = []
        self._asked: anyio.Event | None = None

    def begin(self, work: Work) -> None:
        """Start `work` soon. It must not raise: that ends the hub."""
        self._todo.append(work)
        if self._asked is not None:
            self._asked.set()
            self._asked = None

    async def run(self) -> None:
        """Own the tasks. Cancellation: ends them all."""
        async with anyio.create_task_group() as tasks:
            while True:
                todo, self._todo = self._todo, []
                for work in todo:
                    tasks.start_soon(work)
                if not self._todo:
                    self._asked = anyio.Event()
                    await self._asked.wait()


class Timers:
    """Calls at a time of the event loop's clock, all by one task."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0  # calls due together run in the order of asking
        self._earlier: anyio.Event | None = None

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Call `what` at `time` or as soon after it as the loop allows."""
        self._serial += 1
        if self._earlier is not None and (not self._calls or time < self._calls[0][0]):
            self._earlier.set()
            self._earlier = None
        heapq.heappush(self._calls, (time, self._serial, what))

    async def run(self) -> None:
        while True:
            self._earlier = anyio.Event()
            with anyio.CancelScope(deadline=self._calls[0][0] if self._calls else math.inf):
                await self._earlier.wait()
            self._earlier = None
            now = anyio.current_time()
            while self._calls and self._calls[0][0] <= now:
                heapq.heappop(self._calls)[2]()
