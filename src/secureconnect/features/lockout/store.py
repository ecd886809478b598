"""What counting wrong passwords needs kept: tallies by key, which may be lost, and locks, which may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secureconnect.features.lockout.model import Lock, Tally


class LockoutStore(Protocol):
    """Tallies by key, forgotten when they end. Each method is one atomic step by the store's clock. Raises: Unavailable."""

    async def read(self, key: str) -> Tally:
        """What is known of it; an empty tally where nothing is."""
        ...

    async def fail(self, key: str) -> Tally:
        """Count a wrong password (`failed`), and the tally behind it. Cancellation: it may be counted."""
        ...

    async def merge(self, key: str, tally: Tally) -> Tally:
        """Bring in what was counted elsewhere meanwhile (`merged`). Done twice is done once."""
        ...

    async def clear(self, key: str) -> None:
        """The right password came: forget the failures. A lock stays."""
        ...


class LockStore(Protocol):
    """The locks, as one growing list on disk.

    Every method raises BackendDown, DeadlineExceeded; those that write OutcomeUnknown too.
    """

    async def add(self, key: str, until_us: int) -> None:
        """A new row, unless there is one of this key that ends then or later. Done twice is done once, or harmless."""
        ...

    async def since(self, after: int, *, live_us: int, limit: int) -> Sequence[Lock]:
        """At most `limit` with a number above `after`, ascending, of those whose `until_us` lies after `live_us`.

        Ordering: a lower number may become visible after a higher one when several nodes write; who follows must overlap.
        """
        ...

    async def purge(self, before_us: int, *, limit: int) -> int:
        """Forget rows whose `until_us` lies before `before_us`, at most `limit`; returns how many went."""
        ...
