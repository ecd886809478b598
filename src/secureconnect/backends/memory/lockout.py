"""Tallies of wrong passwords in this process: the only ones of a single node, and its own while the shared ones are away."""

from __future__ import annotations

import trio

from secureconnect.features.lockout.model import Tally, failed, merged
from secureconnect.ports import Clock

TALLIES_MAX = 100_000
"""About 30 MB. Full: those that ended are forgotten, then the oldest without a lock, then the oldest."""


class MemoryLockoutStore:
    """A `LockoutStore`."""

    def __init__(self, clock: Clock, *, tallies_max: int = TALLIES_MAX) -> None:
        self._clock, self._tallies_max = clock, tallies_max
        self._tallies: dict[str, Tally] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    async def read(self, key: str) -> Tally:
        await trio.lowlevel.checkpoint()
        tally = self._tallies.get(key, Tally())
        return tally if self._clock.now_us() < tally.ends_us() else Tally()

    async def fail(self, key: str) -> Tally:
        await trio.lowlevel.checkpoint()
        return self._keep(key, failed(self._tallies.pop(key, Tally()), self._clock.now_us()))

    async def merge(self, key: str, tally: Tally) -> Tally:
        return self._keep(key, merged(await self.read(key), tally))

    async def clear(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        tally = self._tallies.get(key, Tally())
        if not tally.lock_left_s(self._clock.now_us()):
            self._tallies.pop(key, None)

    def _keep(self, key: str, tally: Tally) -> Tally:
        self._tallies[key] = tally
        if len(self._tallies) > self._tallies_max:
            self._forget()
        return tally

    def _forget(self) -> None:
        now_us = self._clock.now_us()
        kept = {key: tally for key, tally in self._tallies.items() if now_us < tally.ends_us()}
        too_many = len(kept) - self._tallies_max * 9 // 10  # a tenth at a time, so that not every call comes here
        by_worth = sorted(kept, key=lambda key: bool(kept[key].locked_until_us))  # stable: the oldest of each first
        for key in by_worth[: max(0, too_many)]:
            del kept[key]
        self._tallies = kept
