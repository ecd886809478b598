"""Buckets of rate limits in this process: the only ones of a single node, and each node's own while the shared ones are away."""

from __future__ import annotations

import trio

from secureconnect.features.rates.model import Rate, Verdict, take
from secureconnect.ports import Clock

BUCKETS_MAX = 100_000
"""About 20 MB. Full: those that are full again are forgotten, and if that is not enough the oldest: they let one in too early."""


class MemoryRateStore:
    """`LocalBuckets`, and a `RateStore` for the nodes of one process."""

    def __init__(self, clock: Clock, *, buckets_max: int = BUCKETS_MAX) -> None:
        self._clock, self._buckets_max = clock, buckets_max
        self._full_at_us: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._full_at_us)

    async def take(self, key: str, rate: Rate) -> Verdict:
        await trio.lowlevel.checkpoint()
        return self.take_now(key, rate)

    def take_now(self, key: str, rate: Rate) -> Verdict:
        now_us = self._clock.now_us()
        full_at_us, verdict = take(rate, self._full_at_us.pop(key, 0), now_us)
        self._full_at_us[key] = full_at_us
        if len(self._full_at_us) > self._buckets_max:
            self._forget(now_us)
        return verdict

    def _forget(self, now_us: int) -> None:
        kept = {key: full_at_us for key, full_at_us in self._full_at_us.items() if full_at_us > now_us}
        if len(kept) > self._buckets_max * 9 // 10:  # a tenth at a time, so that not every call comes here
            kept = dict(list(kept.items())[len(kept) - self._buckets_max * 9 // 10 :])
        self._full_at_us = kept
