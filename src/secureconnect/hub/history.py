"""What a channel without a log remembers: its last events under positions `epoch-offset`, so that a short absence loses nothing.

The epoch is new with each start of the node and each time the channel is opened afresh, or may have missed something. A position
of another epoch is refused instead of silently answered with the wrong events. Pure; time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .frame import Frame, Item


class History:
    """A ring of numbered events, bounded by count and age. Its offsets are what sequences are in a channel with a log.

    `cursor` is what has passed on to the pump; without room an event waits here and passes later, as in a feed.
    """

    __slots__ = ("_events", "_events_max", "_keep_s", "cursor", "epoch", "is_watched", "tail")

    def __init__(self, epoch: str, *, events_max: int, keep_s: float) -> None:
        self.epoch = epoch
        self.tail = 0
        self.cursor = 0
        self.is_watched = False
        """A timer will drop what is old."""
        self._events_max = events_max
        self._keep_s = keep_s
        self._events: deque[tuple[float, Item]] | None = None  # made when needed: most channels are silent

    def __len__(self) -> int:
        return len(self._events or ())

    @property
    def first(self) -> int:
        """The lowest offset that is kept; tail + 1 when there is none."""
        return self._events[0][1].sequence if self._events else self.tail + 1

    @property
    def due(self) -> float | None:
        """When the oldest event is to be forgotten; None: there is none."""
        return self._events[0][0] + self._keep_s if self._events else None

    def position(self, offset: int) -> str:
        return f"{self.epoch}-{offset}"

    def offset(self, position: int | str) -> int | None:
        """The offset that a position means here; None: it is not of this epoch."""
        epoch, _, digits = str(position).rpartition("-")
        if epoch != self.epoch or not digits.isdecimal():
            return None
        return int(digits)

    def append(self, make: Callable[[str], Frame], now: float) -> Item:
        """Give the next event its position and keep it. `make(position)` is its frame."""
        item = Item(self.tail + 1, make(self.position(self.tail + 1)))
        self.tail = item.sequence
        if self._events is None:
            self._events = deque()
        self._events.append((now, item))
        if len(self._events) > self._events_max:
            self._events.popleft()
        return item

    def forget(self, now: float) -> None:
        """Drop what is too old."""
        while self._events and self._events[0][0] + self._keep_s <= now:
            self._events.popleft()
        if not self._events:
            self._events = None

    def after(self, offset: int, limit: int) -> list[Item]:
        """Up to `limit` events behind `offset`, in order. They begin at `first` when older ones are gone."""
        if self._events is None:
            return []
        skip = max(0, offset + 1 - self.first)
        return [self._events[i][1] for i in range(skip, min(len(self._events), skip + limit))]

    def renew(self, epoch: str) -> None:
        """Something may have been missed: no position given so far can be resumed from here."""
        self.epoch = epoch
        self._events = None
        self.cursor = self.tail
