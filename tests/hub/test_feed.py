"""The feed against a trivial model: a list of numbers, a source that may fail or lag, a bus that loses, repeats and reorders."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import secureconnect.hub.feed as feed_module
from secureconnect.hub.feed import BELIEVE_AFTER_S, HOLE_WAIT_S, PAGE, Deliver, Effect, Feed, Moved, Opened, Read, WakeAt
from secureconnect.hub.frame import Frame, Item

ROOM = 6
HELD = 4


def item(sequence: int) -> Item:
    return Item(sequence, Frame(b"{}", "room:1", "said", sequence))


def items(*sequences: int) -> list[Item]:
    return [item(n) for n in sequences]


class CountedRoom:
    """Room for so many entries."""

    def __init__(self, room: int = 10**6) -> None:
        self.room = room

    def left(self) -> int:
        return self.room

    def take(self, item: Item) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        return True


def opened_at(tail: int, room: CountedRoom | None = None) -> Feed:
    feed = Feed(room or CountedRoom())
    assert feed.open(0.0) == [Read(None, 0)]
    feed.read_done([], tail, 0.0)
    return feed


def delivered(effects: Iterable[Effect]) -> list[int]:
    return [entry.sequence for effect in effects if isinstance(effect, Deliver) for entry in effect.items]


def reads(effects: Iterable[Effect]) -> list[Read]:
    return [effect for effect in effects if isinstance(effect, Read)]


@pytest.mark.parametrize(
    ("heard", "passes", "holds"),
    [
        ([8], [8], []),
        ([7], [], []),
        ([3, 7, 8], [8], []),
        ([9], [], [9]),
        ([9, 8], [8, 9], []),
        ([10, 9, 12], [], [10, 9, 12]),
        ([8, 8, 8], [8], []),
        ([9, 9, 8, 9], [8, 9], []),
    ],
)
def test_only_the_next_number_passes_and_what_is_above_it_is_held(heard: list[int], passes: list[int], holds: list[int]) -> None:
    feed = opened_at(7)
    effects = feed.offer(items(*heard), 1.0)
    assert delivered(effects) == passes
    assert list(feed.held) == holds
    assert feed.missing is bool(holds)


def test_a_hole_is_read_after_a_moment_and_not_when_it_closes_by_itself() -> None:
    feed = opened_at(7)
    assert feed.offer(items(9), 1.0) == [WakeAt(1.0 + HOLE_WAIT_S)]
    assert delivered(feed.offer(items(8), 1.01)) == [8, 9]
    assert feed.wake(1.0 + HOLE_WAIT_S) == []
    feed.offer(items(11), 2.0)
    assert feed.wake(2.0 + HOLE_WAIT_S) == [Read(9, PAGE)]
    assert delivered(feed.read_done(items(10, 11), 11, 2.2)) == [10, 11]
    assert not feed.missing


def test_a_hint_reads_and_never_delivers() -> None:
    feed = opened_at(7)
    assert feed.hint(1.0, 7) == [], "nothing new"
    assert feed.hint(1.0, 9) == [WakeAt(1.0 + HOLE_WAIT_S)]
    assert feed.wake(1.0 + HOLE_WAIT_S) == [Read(7, PAGE)]
    assert delivered(feed.read_done(items(8, 9), 9, 1.2)) == [8, 9]


def test_a_hint_without_a_number_is_answered_only_by_a_read_that_began_after_it() -> None:
    feed = opened_at(7)
    assert feed.hint(1.0) == [Read(7, PAGE)]
    assert feed.hint(1.1) == [], "one read at a time"
    assert reads(feed.read_done([], 7, 1.2)) == [Read(7, PAGE)], "the first began before the second was asked for"
    assert feed.read_done([], 7, 1.3) == []


def test_a_hint_without_a_number_survives_a_failed_read() -> None:
    feed = opened_at(7)
    assert feed.hint(1.0) == [Read(7, PAGE)]
    (pause,) = feed.read_failed(1.1)
    assert isinstance(pause, WakeAt)
    assert feed.wake(pause.time) == [Read(7, PAGE)]


def test_what_is_heard_while_it_opens_is_held_and_what_lies_below_the_tail_is_dropped() -> None:
    feed = Feed(CountedRoom())
    feed.open(0.0)
    assert feed.offer(items(4, 5, 6), 0.0) == []
    effects = feed.read_done([], 5, 0.1)
    assert effects[0] == Opened(5)
    assert delivered(effects) == [6]
    assert feed.held == {}


def test_without_room_an_entry_stays_missing_and_passes_when_there_is_some() -> None:
    room = CountedRoom(1)
    feed = opened_at(0, room)
    assert delivered(feed.offer(items(1, 2, 3), 0.0)) == [1]
    assert feed.full
    assert feed.wake(9.0) == [], "full: the source is not asked for what cannot be taken"
    room.room = 2
    assert delivered(feed.freed(9.0)) == [2, 3]
    assert not feed.full
    assert not feed.missing


def test_what_was_read_without_room_is_read_again() -> None:
    room = CountedRoom(1)
    feed = opened_at(0, room)
    feed.hint(0.0, 3)
    assert feed.wake(1.0) == [Read(0, 1)]
    assert delivered(feed.read_done(items(1), 3, 1.0)) == [1]
    assert feed.wake(2.0) == []
    room.room = 5
    assert reads(feed.freed(2.0)) == [Read(1, 5)]


def test_a_failing_source_is_not_asked_at_the_rate_of_the_traffic() -> None:
    feed, asked, now = opened_at(0), 0, 0.0
    for n in range(2, 1002):  # a hole at 1, then 100 entries a second for 10 s
        now += 0.01
        if reads(feed.offer(items(n), now) + feed.wake(now)):
            asked += 1
            feed.read_failed(now)
    assert 5 <= asked <= 15


def test_a_tail_without_the_entries_below_it_is_asked_for_again_after_a_pause() -> None:
    """A store may show its head before its entries; asking at once would be a busy loop."""
    feed = opened_at(0)
    feed.hint(0.0, 2)
    feed.wake(1.0)
    (pause,) = feed.read_done([], 2, 1.0)
    assert isinstance(pause, WakeAt)
    assert pause.time > 1.0
    assert reads(feed.wake(pause.time)) == [Read(0, PAGE)]
    assert delivered(feed.read_done(items(1, 2), 2, 2.0)) == [1, 2]


def test_held_is_bounded_and_the_rest_is_read() -> None:
    feed = opened_at(0)
    feed.offer(items(*range(2, 1000)), 0.0)
    assert len(feed.held) == feed_module.HELD_MAX
    assert feed.named == 999
    assert feed.wake(1.0) == [Read(0, PAGE)]
    effects = feed.read_done(items(*range(1, PAGE + 1)), 999, 1.0)
    assert feed.cursor == feed_module.HELD_MAX + 1
    assert reads(effects) == [Read(feed.cursor, PAGE)]


def test_a_source_that_lost_its_end_is_believed_only_after_several_answers_over_a_long_time() -> None:
    feed, now, asked = opened_at(10), 0.0, 0
    effects = feed.hint(now)
    while not any(isinstance(effect, Moved) for effect in effects):
        asked += 1
        assert asked < 100, "never believed"
        effects = feed.read_done([], 7, now) if feed.reading else feed.wake(now)
        now = next((effect.time for effect in effects if isinstance(effect, WakeAt)), now)
    assert effects[0] == Moved(7, "reset")
    assert now >= BELIEVE_AFTER_S
    assert asked > feed_module.BELIEVE_ANSWERS
    assert not feed.missing
    assert delivered(feed.offer(items(8), now)) == [8]


def test_a_hint_that_nothing_confirms_is_given_up_without_moving_anybody() -> None:
    feed, now = opened_at(10), 0.0
    effects = feed.hint(now, 12)
    for _ in range(200):
        effects = feed.read_done([], 10, now) if feed.reading else feed.wake(now)
        assert not any(isinstance(effect, Moved) for effect in effects)
        now = next((effect.time for effect in effects if isinstance(effect, WakeAt)), now + 0.1)
    assert not feed.missing
    assert feed.cursor == 10


def test_what_retention_removed_from_a_hole_is_passed_over() -> None:
    feed = opened_at(3)
    feed.hint(0.0, 20)
    feed.wake(1.0)
    effects = feed.read_done(items(10, 11), 20, 1.0, first=10)
    assert effects[0] == Moved(9, "retention")
    assert delivered(effects) == [10, 11]


class FeedMachine(RuleBasedStateMachine):
    """What was delivered is exactly start+1, start+2 … and in the end everything; somebody who came back has everything too."""

    def __init__(self) -> None:
        super().__init__()
        self.held_max, feed_module.HELD_MAX = feed_module.HELD_MAX, HELD
        self.now, self.log = 0.0, 3
        self.room = CountedRoom(ROOM)
        self.feed = Feed(self.room)
        self.read: Read | None = None
        self.began_at = 0
        self.start: int | None = None
        self.got: list[int] = []
        self.unwritten = 0
        self.wake_at: float | None = None
        self.reader = 1
        self.is_live = False
        self.read_by_reader: list[int] = []
        self.do(self.feed.open(self.now))

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Opened(cursor):
                    self.start = cursor
                case Deliver(entries):
                    self.deliver([entry.sequence for entry in entries])
                case Read():
                    assert self.read is None, "two reads at once"
                    self.read, self.began_at = effect, self.log
                case WakeAt(time):
                    self.wake_at = time
                case Moved():
                    raise AssertionError("the source never lost anything")

    def deliver(self, sequences: list[int]) -> None:
        self.got += sequences
        self.unwritten += len(sequences)
        if self.is_live:
            self.take([n for n in sequences if n > self.reader])

    def take(self, sequences: list[int]) -> None:
        self.read_by_reader += sequences
        self.reader = sequences[-1] if sequences else self.reader

    @rule(n=st.integers(1, 8))
    def append(self, n: int) -> None:
        self.log += n

    @rule(ages=st.lists(st.integers(0, 12), max_size=6))
    def hear(self, ages: list[int]) -> None:
        self.do(self.feed.offer(items(*(self.log - age for age in ages if age < self.log)), self.now))

    @rule()
    def digest(self) -> None:
        self.do(self.feed.hint(self.now, self.log))

    @rule()
    def look(self) -> None:
        self.do(self.feed.hint(self.now))

    @rule(seconds=st.sampled_from((0.01, 0.06, 1.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.feed.wake(self.now))

    @precondition(lambda self: self.read is not None)
    @rule(outcome=st.sampled_from(("ok", "failed", "as it began", "lagging", "empty")))
    def answer(self, outcome: str) -> None:
        read, self.read = self.read, None
        assert read is not None
        if outcome == "failed":
            self.do(self.feed.read_failed(self.now))
            return
        tail = {"as it began": self.began_at, "lagging": max(0, self.began_at - 2)}.get(outcome, self.log)
        page = [] if outcome == "empty" else self.page(read.after, tail, read.limit)
        self.do(self.feed.read_done(page, tail, self.now))

    def page(self, after: int | None, tail: int, limit: int) -> list[Item]:
        return [] if after is None else items(*range(after + 1, min(tail, after + limit) + 1))

    @rule(n=st.integers(1, ROOM))
    def pump_writes(self, n: int) -> None:
        n = min(n, self.unwritten)
        self.unwritten -= n
        self.room.room += n
        if self.feed.full:
            self.do(self.feed.freed(self.now))

    @rule(limit=st.integers(1, 4))
    def replay(self, limit: int) -> None:
        if not self.is_live:
            self.take([entry.sequence for entry in self.page(self.reader, self.log, limit)])
            self.is_live = self.feed.cursor is not None and self.reader >= self.feed.cursor
            self.do(self.feed.hint(self.now, self.reader))

    @rule()
    def fall_behind(self) -> None:
        self.is_live = False

    @invariant()
    def dense_once_in_order_and_bounded(self) -> None:
        if self.start is not None:
            assert self.got == list(range(self.start + 1, self.start + 1 + len(self.got)))
        assert self.read_by_reader == list(range(2, 2 + len(self.read_by_reader)))
        assert len(self.feed.held) <= HELD
        assert self.unwritten <= ROOM
        assert self.room.room == ROOM - self.unwritten

    @invariant()
    def what_is_missing_is_being_fetched(self) -> None:
        """Never asleep with something missing: a read is under way, a wake is due, or the pump owes room."""
        if self.feed.missing and not self.feed.full:
            assert self.read is not None or (self.wake_at is not None and self.feed._due is not None)
        if self.feed.full:
            assert self.unwritten > 0, "full, but nothing waits that could make room"

    def teardown(self) -> None:
        self.do(self.feed.hint(self.now, self.log))
        for _ in range(200):
            self.now += 2.1
            self.pump_writes(ROOM)
            self.do(self.feed.wake(self.now))
            if self.read is not None:
                self.answer("ok")
            self.replay(4)
        feed_module.HELD_MAX = self.held_max
        assert self.feed.cursor == self.log
        assert not self.feed.missing
        assert not self.feed.held
        assert self.read_by_reader == list(range(2, self.log + 1)), "who came back has everything"


FeedMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestFeedMachine = FeedMachine.TestCase
