"""The append pipeline's core, as a table: what may begin when, and what each result means for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import pytest

from secureconnect.errors import BackendDown, OutcomeUnknown, Overloaded, StorageFull
from secureconnect.features.log.lanes import Call, Item, Lanes, Limits
from secureconnect.features.log.model import MEMBER_JOINED, Appended, Entry, NewEntry
from secureconnect.features.log.store import EntryRefused
from secureconnect.ids import ConversationId, UserId

C = ConversationId("c")
LIMITS = Limits(total_s=5.0, retry_first_s=0.1, retry_longest_s=1.0)


def new(key: str, size: int = 2) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b"{}".ljust(size), UserId("ada"), at_us=0)


def reserve(lanes: Lanes, *keys: str, conversation: ConversationId = C, now_s: float = 0.0) -> list[Item]:
    return [lanes.reserve(conversation, new(key), now_s) for key in keys]


def begin(lanes: Lanes, now_s: float = 0.0) -> Call:
    (call,) = lanes.calls(now_s)
    return call


def keys(call: Call) -> list[str]:
    return [entry.key for entry in call.entries]


def results(call: Call, first: int = 1) -> Sequence[Appended]:
    return [
        Appended(Entry(call.conversation, n, 0, e.kind, e.data, e.key, e.actor, e.at_us), duplicate=False)
        for n, e in enumerate(call.entries, first)
    ]


def sequence(item: Item) -> int:
    assert isinstance(item.promise.answer, Appended)
    return item.promise.answer.entry.sequence


def is_empty(lanes: Lanes) -> bool:
    return (lanes.depth, lanes.bytes, lanes.under_way, lanes.wake_at()) == (0, 0, 0, inf)


def test_what_waits_is_one_group_in_the_order_of_arrival() -> None:
    lanes = Lanes(LIMITS)
    items = reserve(lanes, "a", "b", "c")
    call = begin(lanes)
    assert keys(call) == ["a", "b", "c"]
    lanes.stored(call, results(call, 7))
    assert [sequence(item) for item in items] == [7, 8, 9]
    assert is_empty(lanes)


def test_one_append_of_a_conversation_is_under_way_and_what_comes_meanwhile_is_the_next() -> None:
    lanes = Lanes(LIMITS)
    reserve(lanes, "a")
    first = begin(lanes)
    reserve(lanes, "b", "c")
    assert lanes.calls(0.0) == []
    lanes.stored(first, results(first))
    assert keys(begin(lanes)) == ["b", "c"]


def test_conversations_go_in_parallel_up_to_the_bound_and_in_turn() -> None:
    lanes = Lanes(replace(LIMITS, calls_max=2))
    for name in "xyz":
        reserve(lanes, "1", conversation=ConversationId(name))
    calls = lanes.calls(0.0)
    assert [call.conversation for call in calls] == ["x", "y"]
    reserve(lanes, "2", conversation=ConversationId("x"))
    lanes.stored(calls[0], results(calls[0]))
    assert [call.conversation for call in lanes.calls(0.0)] == ["z"], "it was there before x's second"


def test_a_group_is_bounded_in_entries_and_bytes() -> None:
    lanes = Lanes(replace(LIMITS, group_max=2))
    reserve(lanes, "a", "b", "c")
    assert keys(begin(lanes)) == ["a", "b"]
    lanes = Lanes(replace(LIMITS, group_bytes_max=2_000))
    for key, size in (("large", 9_000), ("b", 10), ("c", 10), ("d", 1_200)):
        lanes.reserve(C, new(key, size), 0.0)
    call = begin(lanes)
    assert keys(call) == ["large"], "alone, though it is over the bound"
    lanes.stored(call, results(call))
    assert keys(begin(lanes)) == ["b", "c"]


def test_a_key_that_is_on_its_way_is_joined() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    assert reserve(lanes, "a") == [a]
    call = begin(lanes)
    assert reserve(lanes, "a") == [a]
    lanes.stored(call, results(call))
    assert lanes.calls(0.0) == []


def test_a_full_lane_refuses_and_others_are_not_touched() -> None:
    lanes = Lanes(replace(LIMITS, lane_max=2))
    (a, _) = reserve(lanes, "a", "b")
    with pytest.raises(Overloaded):
        reserve(lanes, "c")
    assert lanes.full_total == 1
    assert reserve(lanes, "a") == [a], "what is here needs no room"
    reserve(lanes, "c", conversation=ConversationId("other"))
    lanes.withdraw(a)
    reserve(lanes, "c")


def test_all_bytes_together_are_bounded() -> None:
    lanes = Lanes(replace(LIMITS, bytes_max=10_000))
    lanes.reserve(C, new("a", 6_000), 0.0)
    with pytest.raises(Overloaded):
        lanes.reserve(ConversationId("other"), new("b", 6_000), 0.0)
    call = begin(lanes)
    lanes.stored(call, results(call))
    lanes.reserve(ConversationId("other"), new("b", 6_000), 0.0)


def test_what_has_not_begun_is_taken_back() -> None:
    lanes = Lanes(LIMITS)
    a, b = reserve(lanes, "a", "b")
    lanes.withdraw(a)
    assert keys(begin(lanes)) == ["b"]
    lanes.withdraw(b)
    assert lanes.depth == 1, "it has begun"


def test_a_lane_whose_last_item_is_taken_back_is_gone() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    lanes.withdraw(a)
    lanes.withdraw(a)
    assert is_empty(lanes)
    assert lanes.calls(0.0) == []


def test_unknown_is_appended_again_under_the_same_keys_until_it_is_known() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    lanes.unknown(begin(lanes), 0.0)
    (b,) = reserve(lanes, "b")
    assert lanes.calls(0.0) == []
    assert lanes.wake_at() == pytest.approx(0.1)
    call = begin(lanes, 0.1)
    assert keys(call) == ["a"], "nothing new beside what must become known"
    lanes.stored(call, results(call))
    call = begin(lanes, 0.1)
    assert keys(call) == ["b"]
    lanes.stored(call, results(call, 2))
    assert [sequence(item) for item in (a, b)] == [1, 2]
    assert is_empty(lanes)


def test_the_pause_after_an_unknown_outcome_grows_to_its_bound_and_ends_with_success() -> None:
    lanes = Lanes(LIMITS)
    reserve(lanes, "a")
    now = 0.0
    pauses = []
    for _ in range(6):
        lanes.unknown(begin(lanes, now), now)
        pauses.append(round(min(lanes.wake_at(), now + 9) - now, 3) if lanes.wake_at() != 5.0 else None)
        now += 1.0
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    call = begin(lanes, now)
    lanes.stored(call, results(call))
    reserve(lanes, "b", now_s=now)
    lanes.unknown(begin(lanes, now), now)
    assert lanes.wake_at() == pytest.approx(now + 0.1)


def test_unknown_goes_on_when_every_requester_has_left() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    lanes.unknown(begin(lanes), 0.0)
    lanes.withdraw(a)
    assert keys(begin(lanes, 1.0)) == ["a"]


def test_a_refused_group_is_tried_one_by_one() -> None:
    lanes = Lanes(LIMITS)
    items = reserve(lanes, "a", "b", "c")
    lanes.refused(begin(lanes), EntryRefused())
    refusal = EntryRefused()
    for n, key in enumerate("abc", 1):
        call = begin(lanes)
        assert keys(call) == [key]
        if key == "b":
            lanes.refused(call, refusal)
        else:
            lanes.stored(call, results(call, n))
    assert items[1].promise.answer is refusal
    assert (sequence(items[0]), sequence(items[2])) == (1, 3)
    reserve(lanes, "d", "e")
    assert keys(begin(lanes)) == ["d", "e"], "groups again"


def test_what_waits_behind_a_refused_group_may_still_be_taken_back() -> None:
    lanes = Lanes(LIMITS)
    _, b = reserve(lanes, "a", "b")
    lanes.refused(begin(lanes), EntryRefused())
    lanes.withdraw(b)
    call = begin(lanes)
    lanes.stored(call, results(call))
    assert is_empty(lanes)


@pytest.mark.parametrize("error", [StorageFull("sql"), BackendDown("sql"), Overloaded()])
def test_what_is_known_not_to_be_stored_is_answered_at_once(error: BackendDown) -> None:
    lanes = Lanes(LIMITS)
    items = reserve(lanes, "a", "b")
    lanes.failed(begin(lanes), error, 0.0)
    assert [item.promise.answer for item in items] == [error, error]
    assert is_empty(lanes)


def test_a_store_that_is_away_says_nothing_about_an_earlier_unknown_outcome() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    lanes.unknown(begin(lanes), 0.0)
    lanes.failed(begin(lanes, 1.0), BackendDown("sql"), 1.0)
    assert a.promise.answer is None
    assert keys(begin(lanes, 3.0)) == ["a"]


def test_requesters_wait_for_a_bounded_time_and_learn_what_is_true() -> None:
    lanes = Lanes(replace(LIMITS, group_max=1))
    begun, waiting = reserve(lanes, "begun", "waiting")
    call = begin(lanes)
    assert lanes.wake_at() == 5.0
    assert lanes.calls(4.9) == []
    assert begun.promise.answer is None
    assert lanes.calls(5.0) == []
    assert isinstance(begun.promise.answer, OutcomeUnknown)
    assert isinstance(waiting.promise.answer, Overloaded)
    assert lanes.depth == 1, "what has not begun was taken back"
    lanes.stored(call, results(call))
    assert is_empty(lanes)


def test_who_asks_again_after_unknown_waits_for_the_true_result() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    first = a.promise
    call = begin(lanes)
    lanes.calls(5.0)
    assert isinstance(first.answer, OutcomeUnknown)
    assert reserve(lanes, "a", now_s=6.0) == [a]
    assert a.promise.answer is None
    assert lanes.wake_at() == 11.0
    lanes.stored(call, results(call))
    assert sequence(a) == 1
    assert isinstance(first.answer, OutcomeUnknown), "an answer is final"


def test_a_bug_in_the_store_goes_to_its_requesters_and_is_not_tried_again() -> None:
    lanes = Lanes(LIMITS)
    (a,) = reserve(lanes, "a")
    a.promise.requesters = 1
    bug = KeyError("bug")
    assert lanes.broken(begin(lanes), bug)
    assert a.promise.answer is bug
    assert is_empty(lanes)
    reserve(lanes, "b")
    assert not lanes.broken(begin(lanes), bug), "nobody was there to get it"


def test_at_the_end_everybody_is_answered() -> None:
    lanes = Lanes(replace(LIMITS, group_max=1))
    begun, waiting = reserve(lanes, "begun", "waiting")
    begin(lanes)
    over = BackendDown("log")
    lanes.end(over)
    assert isinstance(begun.promise.answer, OutcomeUnknown)
    assert waiting.promise.answer is over


def test_what_a_request_has_waited_for_already_is_a_part_of_its_time() -> None:
    lanes = Lanes(Limits(total_s=5.0))
    (late,) = reserve(lanes, "late", now_s=10.0)
    early = lanes.reserve(C, new("early"), 10.0, 7.0)
    assert lanes.wake_at() == 12.0
    lanes.calls(12.0)
    assert isinstance(early.promise.answer, Overloaded)
    assert late.promise.answer is None
    assert lanes.wake_at() == 15.0
