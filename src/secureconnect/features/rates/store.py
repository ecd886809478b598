"""What rate limits need kept: buckets by key."""

from __future__ import annotations

from typing import Protocol

from secureconnect.features.rates.model import Rate, Verdict


class RateStore(Protocol):
    """Buckets that all nodes share. What is full again may be forgotten."""

    async def take(self, key: str, rate: Rate) -> Verdict:
        """One call under `key`, in one atomic step (`model.take`), by the store's own clock. Raises: Unavailable.

        Cancellation: the call may have been counted.
        """
        ...


class LocalBuckets(Protocol):
    """Buckets of this node alone. What is full again may be forgotten."""

    def take_now(self, key: str, rate: Rate) -> Verdict:
        """As `RateStore.take`, at once: every request comes here."""
        ...
