"""The append pipeline's core under any sequence of events: what must hold whatever the store does and whoever leaves."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from secureconnect.errors import BackendDown, Overloaded
from secureconnect.features.log.lanes import Call, Item, Lanes, Limits
from secureconnect.features.log.model import MEMBER_JOINED, Appended, Entry, NewEntry
from secureconnect.features.log.store import EntryRefused
from secureconnect.ids import ConversationId, UserId

LIMITS = Limits(calls_max=2, group_max=3, lane_max=6, total_s=5.0)
EVENTS = ("reserve", "withdraw", "tick", "stored", "lost", "landed", "refused", "failed", "broken")


class World:
    """A store that is right, and a pipeline that hears of it what chance allows."""

    def __init__(self) -> None:
        self.lanes = Lanes(LIMITS)
        self.now_s = 0.0
        self.logs: dict[ConversationId, list[str]] = {}
        self.calls: list[Call] = []
        self.arrived: dict[ConversationId, list[str]] = {}
        self.items: list[Item] = []
        self.left: list[Item] = []

    def step(self, event: str, number: int) -> None:
        conversation = ConversationId("xyz"[number % 3])
        if event == "reserve":
            self.reserve(conversation)
        elif event == "withdraw" and self.items:
            item = self.items[number % len(self.items)]
            self.left.append(item)
            self.lanes.withdraw(item)
        elif event == "tick":
            self.now_s += number / 50
        elif self.calls:
            self.end(self.calls.pop(number % len(self.calls)), event)
        self.begin()

    def reserve(self, conversation: ConversationId) -> None:
        key = f"{conversation}{len(self.arrived.setdefault(conversation, []))}"
        try:
            item = self.lanes.reserve(conversation, NewEntry(key, MEMBER_JOINED, b"{}", UserId("ada"), 0), self.now_s)
        except Overloaded:
            return
        self.arrived[conversation].append(key)
        self.items.append(item)

    def begin(self) -> None:
        self.calls += self.lanes.calls(self.now_s)
        under_way = [call.conversation for call in self.calls]
        assert len(under_way) == len(set(under_way)) <= LIMITS.calls_max, "one append of a conversation at a time"
        assert len(under_way) == self.lanes.under_way
        assert all(len(call.items) <= LIMITS.group_max for call in self.calls)

    def end(self, call: Call, event: str) -> None:
        error = BackendDown("sql")
        match event:
            case "stored":
                self.lanes.stored(call, self.store(call))
            case "landed":
                self.store(call)
                self.lanes.unknown(call, self.now_s)
            case "lost":
                self.lanes.unknown(call, self.now_s)
            case "refused":
                self.lanes.refused(call, EntryRefused())
            case "failed":
                self.lanes.failed(call, error, self.now_s)
            case "broken":
                self.lanes.broken(call, error)

    def store(self, call: Call) -> Sequence[Appended]:
        log = self.logs.setdefault(call.conversation, [])
        log += [entry.key for entry in call.entries if entry.key not in log]
        return [
            Appended(Entry(call.conversation, log.index(e.key) + 1, 0, e.kind, e.data, e.key, e.actor, 0), duplicate=False)
            for e in call.entries
        ]

    def finish(self) -> None:
        """The store is well again: everything comes to its end."""
        for _ in range(200):
            for call in self.calls:
                self.lanes.stored(call, self.store(call))
            self.calls = []
            self.begin()
            self.now_s += 0.5


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 100)), max_size=80))
def test_order_counts_and_answers_hold_whatever_happens(events: list[tuple[str, int]]) -> None:
    world = World()
    for event, number in events:
        world.step(event, number)
    world.finish()
    lanes = world.lanes
    assert (lanes.depth, lanes.bytes, lanes.under_way) == (0, 0, 0)
    assert lanes.wake_at() == float("inf")
    for conversation, log in world.logs.items():
        assert log == [key for key in world.arrived[conversation] if key in log], "the order of arrival"
    for item in world.items:
        answer = item.promise.answer
        assert answer is not None or item in world.left, "who waits is answered"
        if isinstance(answer, Appended):
            assert world.logs[item.conversation][answer.entry.sequence - 1] == item.entry.key
