"""May they, now? Answered by the buckets that all nodes share, or by this node's own while those are away.

Rates fail open: an outage of their home never refuses anybody whom a node's own share would let in (failure-policy.md §2), and
what was counted meanwhile is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from secureconnect.errors import RateLimited, Unavailable
from secureconnect.features.rates.model import RATES, Verdict
from secureconnect.features.rates.store import RateStore


class Rates:
    """`shared` is one store for all nodes, `local` this node's own; `nodes()`: how many share the limits now.

    `times`: every limit is so many times as high (a developer's machine).
    """

    def __init__(self, shared: RateStore, local: RateStore, *, nodes: Callable[[], int], times: int = 1) -> None:
        self.local_total = 0
        """Calls that only this node counted."""
        self._shared, self._local, self._nodes = shared, local, nodes
        self._rates = {name: replace(rate, limit=rate.limit * times) for name, rate in RATES.items()}

    async def take(self, name: str, who: str) -> Verdict:
        """One call of the class `name` by `who`: a user, or an address where there is none. Raises: RateLimited."""
        rate, key = self._rates[name], f"{name}/{who}"
        try:
            verdict = await self._shared.take(key, rate)
        except Unavailable:
            self.local_total += 1
            verdict = replace(await self._local.take(key, rate.shared_by(self._nodes())), is_local=True)
        if not verdict.is_allowed:
            raise RateLimited(
                f"Too many requests: {verdict.limit} a minute",
                details={"limit": verdict.limit, "remaining": 0, "class": name},
                retry_after_s=verdict.retry_after_s,
            )
        return verdict
