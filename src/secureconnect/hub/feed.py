"""The feed of one channel: lets numbered entries pass in order, once, whatever the bus loses, repeats or reorders.

Pure: no I/O, time is an argument. The log is the truth and its numbers are dense, so a feed needs one number, its cursor. Entry
cursor+1 passes; one at or below was seen; one above is held while the missing ones may still be on their way, then the hole is
read from the source. What nobody hears of (the last entry before a silence) comes as a *hint*, which starts a read and never
delivers by itself. What attacking this taught:

- The cursor moves only with entries that there is room for. Without room nothing is lost: the entry stays missing, is read later.
- At most one read is under way. Its back-off binds hints and holes too, or a failing source is asked at the rate of the traffic.
- Failed reads only lengthen the pause. Answers that contradict what was known when the read *began* are counted apart; only
  several of them over many seconds are believed (a log restored from a backup), for a lagging replica contradicts as well.
- A hint without a number is answered only by a read that began after it.
- A new feed reads the tail *after* the bus confirmed the subscription, and holds what it hears meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import msgspec

from .frame import Item

HELD_MAX = 256
"""Entries held above a hole; beyond that only the number is remembered and the source is read."""
HOLE_WAIT_S = 0.05
"""What is missing is usually a few ms late, on another connection."""
PAGE = 200
"""Entries of one read: a few ms of a store's time, well under a megabyte of chat."""
BACKOFF_S = (0.1, 1.0)
"""Pause after a failed or contradicting read: first, longest. The longest keeps recovery under the promised 2 s."""
BELIEVE_ANSWERS = 6
"""So many contradicting answers in a row ..."""
BELIEVE_AFTER_S = 15.0
"""... over at least so long, before the source overrules what was heard: replicas lag for less."""


class Room(Protocol):
    """What the pump can still take of this channel."""

    def left(self) -> int:
        """Entries for which there is room; 0 when it is full in any way."""
        ...

    def take(self, item: Item) -> bool:
        """Give it room, or refuse; after a refusal the feed waits for `freed`."""
        ...


class Opened(msgspec.Struct, frozen=True):
    """The feed knows its place: everything after `cursor` is delivered from now on."""

    cursor: int


class Deliver(msgspec.Struct, frozen=True):
    """Queue these for the live members, in this order, in the same synchronous step. They have room."""

    items: Sequence[Item]


class Read(msgspec.Struct, frozen=True):
    """Read entries above `after`, at most `limit`; `after` None: only the tail. Answer by `read_done` or `read_failed`."""

    after: int | None
    limit: int


class WakeAt(msgspec.Struct, frozen=True):
    """Call `wake` at this time. Replaces an earlier one; an extra wake does no harm."""

    time: float


class Moved(msgspec.Struct, frozen=True):
    """Events go on after `cursor`, and what lies between is not coming: tell the members, forget what waits for them.

    `reset`: the log ends below what was delivered (restored from a backup). `retention`: it begins above what is missing.
    """

    cursor: int
    cause: Literal["reset", "retention"]


Effect: TypeAlias = Opened | Deliver | Read | WakeAt | Moved


def pause_s(times: int) -> float:
    """How long to wait after so many failures in a row."""
    first, longest = BACKOFF_S
    return min(longest, first * 2.0 ** min(times - 1, 16))


@dataclass(slots=True)
class Feed:
    """The cursor of a channel on this node. Every method returns what is to be done, in that order."""

    room: Room
    cursor: int | None = None
    """The last number that passed; None until the tail was read."""
    named: int = 0
    """The highest number that anyone has spoken of."""
    held: dict[int, Item] = field(default_factory=dict)
    look: bool = False
    """Asked without a number; cleared by a read that begins afterwards."""
    reading: Read | None = None
    failures: int = 0
    contradictions: int = 0
    full: bool = False
    """Room was refused; nothing passes and nothing is read until `freed`."""
    _look_read: bool = False  # the present read answers a look
    _claimed: int = 0  # what was known when the present read began
    _contradicted_at: float = 0.0
    _due: float | None = None  # when the source should be read; None: nothing is missing
    _not_before: float = 0.0  # back-off

    @property
    def missing(self) -> bool:
        """Whether something is known to be in the log that has not passed."""
        return self.cursor is None or self.look or self.named > self.cursor

    def open(self, now: float) -> list[Effect]:
        """Begin: the bus has confirmed the subscription, or is away."""
        return self._settle(now, [], due=now)

    def offer(self, items: Iterable[Item], now: float) -> list[Effect]:
        """Entries of the own node or the bus, in any order, any number of times."""
        passed: list[Item] = []
        for item in items:
            self.named = max(self.named, item.sequence)
            if not self._pass(item, passed):
                self._hold(item)
        return self._settle(now, _deliver(passed), due=now + HOLE_WAIT_S)

    def hint(self, now: float, tail: int | None = None) -> list[Effect]:
        """A digest, a sweep or a reader names the tail; None: something may be there that nobody can number."""
        if tail is None:
            self.look = True
            return self._settle(now, [], due=now)
        self.named = max(self.named, tail)
        return self._settle(now, [], due=now + HOLE_WAIT_S)

    def freed(self, now: float) -> list[Effect]:
        """There is room again."""
        was_full, self.full = self.full, False
        passed: list[Item] = []
        self._pass_held(passed)
        return self._settle(now, _deliver(passed), due=now if was_full else None)

    def wake(self, now: float) -> list[Effect]:
        return self._settle(now, [])

    def read_failed(self, now: float) -> list[Effect]:
        self.reading = None
        self.look = self.look or self._look_read
        self.failures += 1
        self._not_before = now + pause_s(self.failures)
        return self._settle(now, [], due=self._not_before)

    def read_done(self, items: Iterable[Item], tail: int, now: float, *, first: int = 1) -> list[Effect]:
        """The answer to the last `Read`: `items` ascending, the log's tail and its first number kept."""
        read, self.reading = self.reading, None
        assert read is not None, "an answer without a read"
        self.named = max(self.named, tail)
        effects: list[Effect] = []
        if read.after is None:
            effects += self._opened(tail)
        elif tail >= self._claimed and first - 1 > (self.cursor or 0):
            effects += self._skipped(first - 1)
        passed: list[Item] = []
        self._pass_held(passed)
        for item in items:
            self._pass(item, passed)
        effects += _deliver(passed)
        if tail < self._claimed and not passed:
            self.failures = 0
            return effects + self._contradicted(tail, now)
        self.contradictions = 0
        if read.after is not None and self.cursor == read.after < tail and not self.full:
            return effects + self.read_failed(now)  # a tail, but not the entries below it: they are not there yet
        self.failures = 0
        return self._settle(now, effects, due=now)

    def _opened(self, tail: int) -> list[Effect]:
        assert self.cursor is None, "opened twice"
        self.cursor = tail
        self._forget_held()
        return [Opened(tail)]

    def _skipped(self, cursor: int) -> list[Effect]:
        self.cursor = cursor
        self._forget_held()
        return [Moved(cursor, "retention")]

    def _contradicted(self, tail: int, now: float) -> list[Effect]:
        """The answer is older than what was known when it was asked for: a lagging replica, or a log that lost its end."""
        assert self.cursor is not None
        if not self.contradictions:
            self._contradicted_at = now
        self.contradictions += 1
        if self.contradictions < BELIEVE_ANSWERS or now - self._contradicted_at < BELIEVE_AFTER_S:
            self.look = True  # ask again even when nothing is known to be missing
            self._not_before = now + pause_s(self.contradictions)
            return self._settle(now, [], due=self._not_before)
        effects: list[Effect] = [Moved(tail, "reset")] if tail < self.cursor else []
        self.cursor, self.named, self.contradictions, self.look = min(self.cursor, tail), tail, 0, False
        self.held.clear()
        return self._settle(now, effects, due=now)

    def _pass(self, item: Item, passed: list[Item]) -> bool:
        """Let it pass if it is the next one, and what is held behind it; False: it should be held."""
        if self.cursor is None or item.sequence > self.cursor + 1:
            return False
        if item.sequence <= self.cursor:
            return True
        if self.full or not self.room.take(item):
            self.full = True
            return False
        self.cursor = item.sequence
        self.held.pop(item.sequence, None)
        passed.append(item)
        self._pass_held(passed)
        return True

    def _pass_held(self, passed: list[Item]) -> None:
        if self.cursor is None:
            return
        while not self.full and (item := self.held.get(self.cursor + 1)) is not None:
            if not self.room.take(item):
                self.full = True
                return
            self.cursor = item.sequence
            passed.append(self.held.pop(item.sequence))

    def _hold(self, item: Item) -> None:
        if len(self.held) < HELD_MAX:
            self.held[item.sequence] = item

    def _forget_held(self) -> None:
        assert self.cursor is not None
        for sequence in [n for n in self.held if n <= self.cursor]:
            del self.held[sequence]

    def _settle(self, now: float, effects: list[Effect], due: float | None = None) -> list[Effect]:
        """The end of every step: read now, later, or not at all."""
        if not self.missing:
            self._due = None
            return effects
        if due is not None:
            self._due = max(due if self._due is None else min(due, self._due), self._not_before)
        if self.reading is not None or self._due is None or self.full:
            return effects
        if now < self._due:
            return [*effects, WakeAt(self._due)]
        if self.cursor is not None and self.room.left() <= 0:
            self.full = True
            return effects
        return [*effects, self._begin_read()]

    def _begin_read(self) -> Read:
        self.reading = Read(None, 0) if self.cursor is None else Read(self.cursor, min(PAGE, self.room.left()))
        self._look_read, self.look, self._due = self.look, False, None
        self._claimed = max(self.named, self.cursor or 0)
        return self.reading


def _deliver(passed: list[Item]) -> list[Effect]:
    return [Deliver(passed)] if passed else []
