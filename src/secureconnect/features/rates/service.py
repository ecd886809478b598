"""May they, now? Answered by the buckets that all nodes share, or by this node's own while those are away.

Rates fail open: an outage of their home never refuses anybody whom a node's own share would let in (failure-policy.md §2), and
what was counted meanwhile is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from secureconnect.errors import Unavailable
from secureconnect.features.rates.model import Rate, Verdict
from secureconnect.features.rates.store import LocalBuckets, RateStore


class Rates:
    """`rates` by class. `local`: this node's own buckets; `shared`: one store for all nodes, None where there is one node only.

    `nodes()`: how many share the limits now.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate],
        local: LocalBuckets,
        *,
        shared: RateStore | None = None,
        nodes: Callable[[], int] = lambda: 1,
    ) -> None:
        self.local_total = 0
        """Calls that only this node counted because the shared buckets were away."""
        self.is_local = False
        """The last call was such a one."""
        self._rates, self._local, self._shared, self._nodes = dict(rates), local, shared, nodes

    def take_now(self, name: str, who: str) -> Verdict | None:
        """As `take`, at once. None: others have to be asked."""
        if self._shared is not None:
            return None
        return self._local.take_now(f"{name}/{who}", self._rates[name])

    async def take(self, name: str, who: str) -> Verdict:
        """One call of the class `name` by `who`: a user, or an address where there is none.

        Cancellation: it may have been counted.
        """
        rate, key = self._rates[name], f"{name}/{who}"
        assert self._shared is not None, "then `take_now` answers"
        try:
            verdict = await self._shared.take(key, rate)
        except Unavailable:
            self.local_total += 1
            verdict = replace(self._local.take_now(key, rate.shared_by(self._nodes())), is_local=True)
        self.is_local = verdict.is_local
        return verdict
