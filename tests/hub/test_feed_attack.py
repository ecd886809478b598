"""A feed attacked for a while: a bus that drops, repeats and reorders, digests that get lost, a source that fails and lags.

One channel with three readers that come and go, in virtual time. Each reader gets every number once and in order; whatever was
lost, everything arrives within BOUND_S of its append; nothing is left to do in the end.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

import pytest

from secureconnect.hub.feed import HELD_MAX, Deliver, Effect, Feed, Opened, Read, WakeAt
from secureconnect.hub.frame import Frame, Item

BOUND_S = 10.0
FRAME = Frame(b"{}", "room:1", "said")


class EndlessRoom:
    def left(self) -> int:
        return 10**9

    def take(self, item: Item) -> bool:
        return True


class Reader:
    def __init__(self) -> None:
        self.got: list[int] = []
        self.is_live = False
        self.joined_at = 0.0

    @property
    def cursor(self) -> int:
        return self.got[-1] if self.got else 0

    def take(self, numbers: Iterable[int]) -> list[int]:
        fresh = [n for n in numbers if n > self.cursor]
        self.got += fresh
        return fresh


class Attack:
    def __init__(self, seed: int) -> None:
        self.random = rng = random.Random(seed)
        self.now = 0.0
        self.todo: list[tuple[float, int, Callable[[], None]]] = []
        self.steps = 0
        self.appended_at: list[float] = []
        self.late: list[float] = []
        self.feed = Feed(EndlessRoom())
        self.readers = [Reader() for _ in range(3)]
        self.drop, self.repeat = rng.choice((0, 0.05, 0.3, 0.9)), rng.choice((0, 0.2))
        self.delay_s, self.fail = rng.choice((0.001, 0.03, 0.4)), rng.choice((0, 0.2, 0.6))
        self.lag = rng.choice((0, 0, 3))
        self.quiet_at = rng.uniform(5, 20)
        self.heads: dict[int, int] = {}  # tail -> digests left
        self.lost_last = False

    @property
    def tail(self) -> int:
        return len(self.appended_at)

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        self.steps += 1
        assert self.steps < 200_000, "it does not come to rest"
        heapq.heappush(self.todo, (self.now + delay_s, self.steps, what))

    def run(self) -> None:
        self.apply(self.feed.open(self.now))
        for reader in self.readers:
            self.replay(reader)
        self.at(0.5, self.append)
        self.at(self.random.random(), self.digest)
        self.at(self.random.random() * 3, self.look)
        while self.todo:
            self.now, _, what = heapq.heappop(self.todo)
            what()
        for reader in self.readers:
            assert reader.got == list(range(1, self.tail + 1))
        assert max(self.late, default=0.0) <= BOUND_S
        assert self.feed.reading is None
        assert not self.feed.missing
        assert not self.feed.held

    def apply(self, effects: list[Effect]) -> None:
        assert len(self.feed.held) <= HELD_MAX
        for effect in effects:
            match effect:
                case Opened(cursor):
                    assert cursor <= self.tail
                case Deliver(entries):
                    self.deliver([entry.sequence for entry in entries])
                case Read():
                    failed = self.random.random() < self.fail and self.now < self.quiet_at
                    self.at(self.random.uniform(0.001, 0.3), self.answer(effect, failed))
                case WakeAt(time):
                    self.at(max(0.0, time - self.now), lambda: self.apply(self.feed.wake(self.now)))
                case _:
                    raise AssertionError(effect)

    def deliver(self, numbers: list[int]) -> None:
        for reader in self.readers:
            if reader.is_live:
                for n in reader.take(numbers):
                    self.late.append(self.now - max(self.appended_at[n - 1], reader.joined_at))

    def answer(self, read: Read, failed: bool) -> Callable[[], None]:
        def arrives() -> None:
            if failed:
                self.apply(self.feed.read_failed(self.now))
                return
            is_late = self.now < self.quiet_at and self.random.random() < 0.5
            tail = max(0, self.tail - (self.lag if is_late else 0))
            numbers = [] if read.after is None else range(read.after + 1, min(tail, read.after + read.limit) + 1)
            self.apply(self.feed.read_done([Item(n, FRAME) for n in numbers], tail, self.now))

        return arrives

    def append(self) -> None:
        self.appended_at.append(self.now)
        n = self.tail
        self.heads[n] = 5
        for _ in range(1 + (self.random.random() < self.repeat)):
            if self.random.random() >= self.drop:
                self.at(
                    self.random.expovariate(1 / self.delay_s), lambda: self.apply(self.feed.offer([Item(n, FRAME)], self.now))
                )
        if self.now < self.quiet_at:
            self.at(self.random.expovariate(8), self.append)

    def digest(self) -> None:
        """One in a row may be lost; each head is in five of them."""
        if self.now > self.quiet_at + 30:
            return
        self.lost_last = self.random.random() < 0.3 and not self.lost_last
        if not self.lost_last and self.heads:
            self.apply(self.feed.hint(self.now, max(self.heads)))
        self.heads = {tail: left - 1 for tail, left in self.heads.items() if left > 1}
        self.at(1.0, self.digest)

    def look(self) -> None:
        self.apply(self.feed.hint(self.now))
        if self.now < self.quiet_at:
            self.at(self.random.expovariate(0.5), self.look)

    def replay(self, reader: Reader) -> None:
        def page() -> None:
            reader.take(range(reader.cursor + 1, min(self.tail, reader.cursor + 5) + 1))
            if self.feed.cursor is None or reader.cursor < self.feed.cursor:
                self.at(self.random.uniform(0.001, 0.2), page)
                return
            reader.is_live, reader.joined_at = True, self.now
            if self.now < self.quiet_at:
                self.at(self.random.expovariate(0.3), leave)

        def leave() -> None:
            reader.is_live = False
            self.at(self.random.uniform(0, 2), page)

        self.at(self.random.uniform(0.001, 0.2), page)


@pytest.mark.parametrize("seeds", [range(50), range(50, 100), range(100, 150)], ids=["0-49", "50-99", "100-149"])
def test_every_reader_gets_everything_once_in_order_and_in_time(seeds: range) -> None:
    for seed in seeds:
        Attack(seed).run()
