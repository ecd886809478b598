"""The client's rules: what is new, what may be sent now, when to try again."""

from __future__ import annotations

import pytest

from secureconnect.client.backoff import LONGEST_S, Backoff, PollPace
from secureconnect.client.errors import NotConnected, ServerRefused
from secureconnect.client.events import Cursors, Event, read_event
from secureconnect.client.outbox import OUTBOX_MAX, Outbox, OutboxFull

CHANNEL = "conversation:c"


def entry(sequence: int) -> Event:
    return read_event({"event": "message.created", "channel": CHANNEL, "sequence": sequence, "data": {}})


def test_an_entry_is_admitted_once_however_often_it_comes() -> None:
    cursors = Cursors({CHANNEL: 3})
    assert [cursors.admit(entry(n)) for n in (3, 4, 4, 5, 2)] == [False, True, False, True, False]
    assert cursors.after() == {CHANNEL: 5}


def test_what_has_no_position_always_passes() -> None:
    typing = read_event({"event": "typing", "channel": CHANNEL, "data": {}})
    cursors = Cursors()
    assert cursors.admit(typing)
    assert cursors.admit(typing)
    assert cursors.after() == {}


def test_positions_of_one_epoch_are_ordered_and_another_epoch_is_new() -> None:
    cursors = Cursors()
    events = [Event("x", "user:u", {}, p) for p in ("e1-2", "e1-2", "e1-1", "e1-10", "e2-1")]
    assert [cursors.admit(e) for e in events] == [True, False, False, True, True]


def test_a_subscription_begins_a_cursor_but_never_rewinds_it() -> None:
    cursors = Cursors()
    cursors.begin(CHANNEL, 7)
    cursors.begin(CHANNEL, 2)
    assert cursors.after() == {CHANNEL: 7}
    assert cursors.move(CHANNEL, 2, back=True)
    assert cursors.after() == {CHANNEL: 2}


def params(key: str, conversation: str = "c") -> dict[str, object]:
    return {"client_message_id": key, "conversation_id": conversation, "content": "x"}


def test_sends_of_one_conversation_leave_one_after_the_other() -> None:
    outbox = Outbox()
    first, second = outbox.add(params("a")), outbox.add(params("b"))
    other = outbox.add(params("c", "d"))
    assert outbox.next(0) is first
    assert outbox.next(0) is other
    assert outbox.next(0) is None
    outbox.answered(first, {"sequence": 1})
    assert outbox.next(0) is second
    assert first.result == {"sequence": 1}
    assert len(outbox) == 2


def test_what_was_under_way_goes_out_again_under_its_key() -> None:
    outbox = Outbox()
    first = outbox.add(params("a"))
    assert outbox.next(0) is first
    outbox.lost(first)
    assert outbox.next(0) is first
    assert first.key == ("c", "a")


def test_a_retryable_refusal_waits_and_holds_what_is_behind_it() -> None:
    outbox = Outbox()
    first, second = outbox.add(params("a")), outbox.add(params("b"))
    assert outbox.next(0) is first
    outbox.refused(first, ServerRefused({"code": "OVERLOADED", "retryable": True, "retry_after_s": 2}), 10.0)
    assert outbox.next(11) is None
    assert outbox.wake_at(11) == 12.0
    assert outbox.next(12) is first
    outbox.answered(first, {})
    assert outbox.next(12) is second


def test_a_final_refusal_is_the_senders_and_frees_the_next() -> None:
    outbox = Outbox()
    first, second = outbox.add(params("a")), outbox.add(params("b"))
    outbox.next(0)
    outbox.refused(first, ServerRefused({"code": "FORBIDDEN"}), 0)
    assert isinstance(first.error, ServerRefused)
    assert first.done.is_set()
    assert outbox.next(0) is second


def test_the_outbox_is_bounded_and_can_be_failed() -> None:
    outbox = Outbox()
    sends = [outbox.add(params(str(n))) for n in range(OUTBOX_MAX)]
    with pytest.raises(OutboxFull):
        outbox.add(params("one too many"))
    outbox.fail_all(NotConnected("gone"))
    assert len(outbox) == 0
    assert all(send.done.is_set() for send in sends)


def test_pauses_grow_with_full_jitter_and_obey_the_server() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [backoff.next_s() for _ in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]
    assert backoff.next_s(3.0) == 3.0
    backoff.reset()
    assert backoff.next_s() == 0.5
    assert LONGEST_S == 30


def test_a_due_send_that_may_not_leave_sets_no_clock() -> None:
    """It waits for a connection, or for the send before it; a clock that is over would only spin."""
    outbox = Outbox()
    first = outbox.add(params("a"))
    outbox.next(0)
    outbox.refused(first, ServerRefused({"code": "OVERLOADED", "retryable": True, "retry_after_s": 2}), 10.0)
    assert outbox.wake_at(11.0) == 12.0
    assert outbox.wake_at(12.0) is None


def test_the_same_key_while_the_outcome_is_open_is_the_same_send() -> None:
    outbox = Outbox()
    first = outbox.add(params("a"))
    assert outbox.add(params("a")) is first
    assert outbox.add(params("a", "d")) is not first


def test_one_lost_answer_does_not_send_again_what_else_is_under_way() -> None:
    outbox = Outbox()
    first, other = outbox.add(params("a")), outbox.add(params("b", "d"))
    assert [outbox.next(0), outbox.next(0)] == [first, other]
    outbox.lost(first, not_before=1.0)
    assert outbox.next(0.5) is None
    assert outbox.next(1.0) is first


def test_polls_that_are_answered_at_once_without_news_come_ever_more_slowly() -> None:
    pace = PollPace(lambda: 0.5)
    assert [pace.next_s(took_s=0.01, news=False) for _ in range(5)] == [0, 0.375, 0.75, 1.5, 3.0]
    assert max(pace.next_s(took_s=0.01, news=False) for _ in range(10)) == LONGEST_S
    assert pace.next_s(took_s=0.01, news=True) == 0
    assert [pace.next_s(took_s=25, news=False) for _ in range(5)] == [0] * 5
