"""What counting wrong passwords needs kept: tallies by key."""

from __future__ import annotations

from typing import Protocol

from secureconnect.features.lockout.model import Tally


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
