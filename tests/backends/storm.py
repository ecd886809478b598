"""Callers who leave at random, beside as many who only sleep: what a frozen server must not do to either."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from random import Random

import anyio

from secureconnect.errors import Unavailable

CALLERS = 500
MARGIN_S = 0.25
"""Beyond what bare sleeps in the same process show: a loaded machine is slow, not wrong."""
PATIENCE_S = 30.0
PAUSE_S = 0.2
"""The longest pause of who was refused, or refusals would be all that happens."""

Ask = Callable[[str], Awaitable[str]]
"""Say a word to the server, which says it back."""


class Storm:
    """Each caller asks again and again, each time for as long as it likes and not longer. `promised_s`: when a call ends by
    itself at the latest; `longest_s`: the longest that a caller likes."""

    def __init__(self, ask: Ask, *, promised_s: float, longest_s: float) -> None:
        self.answered = self.refused = self.left = 0
        self.served: set[int] = set()
        """Callers who got an answer; cleared by the test."""
        self.late_s = self.sleeps_late_s = 0.0
        """The latest end of a call, and of a bare sleep, after it was due."""
        self._ask, self._promised_s, self._longest_s = ask, promised_s, longest_s
        self._random = Random(4)
        self._is_over = False

    async def run(self, frozen: Callable[[], None], thawed: Callable[[], None], *, frozen_s: float) -> None:
        """Until everybody was served once more after the thaw."""
        async with anyio.create_task_group() as tasks:
            for n in range(CALLERS):
                tasks.start_soon(self._call, n)
                tasks.start_soon(self._sleep)
            await self._all_served()
            self.left = 0
            frozen()
            try:
                await anyio.sleep(frozen_s)
            finally:
                thawed()
            self.served.clear()
            await self._all_served()
            self._is_over = True

    async def _all_served(self) -> None:
        with anyio.fail_after(PATIENCE_S):
            while len(self.served) < CALLERS:  # noqa: ASYNC110  # counted here, not told by an event for each
                await anyio.sleep(0.02)

    async def _call(self, n: int) -> None:
        for k in count():
            if self._is_over:
                return
            word, patience_s, began_s = f"{n}/{k}", self._random.uniform(0, self._longest_s), anyio.current_time()
            is_refused = False
            with anyio.CancelScope(deadline=began_s + patience_s) as scope:
                try:
                    assert await self._ask(word) == word, "somebody else's answer"
                    self.answered += 1
                    self.served.add(n)
                except Unavailable:
                    self.refused += 1
                    is_refused = True
            self.left += scope.cancelled_caught
            self.late_s = max(self.late_s, anyio.current_time() - began_s - min(patience_s, self._promised_s))
            await anyio.sleep(self._random.uniform(0, PAUSE_S) if is_refused else 0)

    async def _sleep(self) -> None:
        while not self._is_over:
            due_s = anyio.current_time() + self._random.uniform(0, self._longest_s)
            await anyio.sleep_until(due_s)
            self.sleeps_late_s = max(self.sleeps_late_s, anyio.current_time() - due_s)


def sockets() -> int:
    """How many this process has."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what ends in its own time."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # there is nobody who could say it
            await anyio.sleep(0.02)
