"""The log behind a channel, as the hub needs it: dense numbers, read from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .frame import Item


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in ascending order without holes, and where the log ends and begins, at one moment.

    `tail`: the last number given, 0 in an empty log. `first`: the lowest number that is kept, 1 when nothing was removed.
    """

    items: tuple[Item, ...]
    tail: int
    first: int = 1


class Source(Protocol):
    """A log. Numbers are dense and for ever: retention removes from the front and never resets them."""

    async def read(self, channel: str, after: int, limit: int) -> Page:
        """At most `limit` entries with a number above `after`; 0: only `tail` and `first`. An unknown channel is an empty log.

        Raises: SourceAway. The hub sets the deadline (`Limits.read_deadline_s`) and asks again later.
        """
        ...

    async def heads(self, channels: Sequence[str]) -> Mapping[str, int]:
        """The tails of many logs in one call; unknown ones are left out. Raises: SourceAway."""
        ...
