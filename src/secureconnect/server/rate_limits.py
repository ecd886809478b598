"""Counts requests against the rate limits, for dispatch and for sockets that open: whose bucket it is, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from secureconnect.errors import RateLimited
from secureconnect.features.auth.model import Identity
from secureconnect.features.rates.model import Verdict
from secureconnect.features.rates.service import Rates
from secureconnect.ports import Clock
from secureconnect.server.endpoints import RateClass
from secureconnect.server.origins import subscriber

HEADERS: Final = (("limit", "X-RateLimit-Limit"), ("remaining", "X-RateLimit-Remaining"), ("reset_at", "X-RateLimit-Reset"))


class RateLimiter:
    """One per node. Off (`is_on`), nothing is counted."""

    def __init__(self, rates: Rates, clock: Clock, *, is_on: bool = True) -> None:
        self.rates = rates
        self.refused: dict[str, int] = {}
        """Requests, by class, since the start."""
        self._clock, self._is_on = clock, is_on

    async def count(self, name: RateClass, identity: Identity | None, peer: str) -> Verdict | None:
        """One request of the class `name`; None: it is not limited. Passes no checkpoint where no other node has to be asked.

        Raises: RateLimited. Cancellation: it may have been counted.
        """
        if not self._is_on or name == "none":
            return None
        who = subscriber(peer) if identity is None else identity.user
        verdict = self.rates.take_now(name, who)
        if verdict is None:
            verdict = await self.rates.take(name, who)
        if verdict.is_allowed:
            return verdict
        self.refused[name] = self.refused.get(name, 0) + 1
        raise RateLimited(
            f"Too many requests: {verdict.limit} a minute",
            details={"class": name, "limit": verdict.limit, "remaining": 0, "reset_at": self._reset_at(verdict)},
            retry_after_s=verdict.retry_after_s,
        )

    def headers(self, verdict: Verdict) -> Mapping[str, str]:
        """What an answer over HTTP says of the bucket (contract.md §2.14)."""
        return limit_headers({"limit": verdict.limit, "remaining": verdict.remaining, "reset_at": self._reset_at(verdict)})

    def _reset_at(self, verdict: Verdict) -> int:
        return math.ceil(self._clock.now_us() / 1e6 + verdict.reset_s)


def limit_headers(bucket: Mapping[str, object]) -> dict[str, str]:
    """Of what `bucket` says. `reset_at`: Unix seconds, when it is full again."""
    return {header: str(bucket[name]) for name, header in HEADERS if name in bucket}
