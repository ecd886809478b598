"""Requests and their answers in order, and the pulse: pure, as tables and as a model."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.backends.redis.line import Line, OutOfStep, Request
from secureconnect.backends.redis.pulse import TICKS, Pulse
from secureconnect.errors import Overloaded


def line_of(count_max: int = 100, bytes_max: int = 1_000) -> Line:
    return Line(count_max=count_max, bytes_max=bytes_max)


def entered(line: Line, *names: bytes) -> list[Request]:
    requests = [Request(name) for name in names]
    for request in requests:
        line.enter(request)
    return requests


def test_answers_belong_to_requests_in_the_order_they_were_sent() -> None:
    line = line_of()
    first, second = entered(line, b"a", b"b")
    assert line.take() == b"ab"
    assert line.take() == b""
    line.answer(1)
    assert (first.reply, second.answered.is_set()) == (1, False)
    line.answer(2)
    assert second.reply == 2
    assert (len(line), line.bytes) == (0, 0)


def test_the_late_answer_of_a_caller_that_left_is_dropped_in_its_place() -> None:
    line = line_of()
    left, stays = entered(line, b"a", b"b")
    line.take()
    left.is_abandoned = True
    line.answer(b"late")
    line.answer(b"mine")
    assert stays.reply == b"mine"
    assert line.dropped_total == 1


def test_what_was_not_sent_before_its_caller_left_is_never_sent() -> None:
    line = line_of()
    left, stays = entered(line, b"a", b"b")
    left.is_abandoned = True
    assert line.take() == b"b"
    assert not left.is_sent
    line.answer(b"mine")
    assert stays.reply == b"mine"
    assert (len(line), line.bytes) == (0, 0)


@pytest.mark.parametrize(("count_max", "bytes_max"), [(2, 1_000), (100, 6)], ids=["count", "bytes"])
def test_a_full_line_refuses_and_those_who_left_still_count(count_max: int, bytes_max: int) -> None:
    line = line_of(count_max, bytes_max)
    sent = entered(line, b"abc", b"def")
    line.take()
    sent[0].is_abandoned = True
    with pytest.raises(Overloaded):
        line.enter(Request(b"x"))
    line.answer(None)
    line.enter(Request(b"x"))


def test_a_subscription_is_answered_by_its_confirmations_and_not_by_a_reply() -> None:
    line = line_of()
    subscription = Request(b"s", confirmations=2)
    line.enter(subscription)
    (after,) = entered(line, b"a")
    line.take()
    line.confirm()
    assert not subscription.answered.is_set()
    line.confirm()
    assert subscription.answered.is_set()
    line.answer(b"mine")
    assert after.reply == b"mine"


def test_a_refused_subscription_is_answered_by_one_error() -> None:
    line = line_of()
    subscription = Request(b"s", confirmations=2)
    line.enter(subscription)
    (after,) = entered(line, b"a")
    line.take()
    line.answer(hiredis.ReplyError("NOPERM"))
    line.answer(b"mine")
    assert isinstance(subscription.reply, hiredis.ReplyError)
    assert after.reply == b"mine"


def test_what_nobody_asked_for_is_out_of_step() -> None:
    line = line_of()
    with pytest.raises(OutOfStep, match="max number of clients"):
        line.answer(hiredis.ReplyError("ERR max number of clients reached"))
    with pytest.raises(OutOfStep):
        line.confirm()
    entered(line, b"unsent")
    with pytest.raises(OutOfStep):
        line.answer(1)
    line.take()
    with pytest.raises(OutOfStep):
        line.confirm()
    line.answer(1)
    line.enter(Request(b"s", confirmations=1))
    line.take()
    with pytest.raises(OutOfStep):
        line.answer(1)


def test_when_it_is_lost_everybody_learns_so_and_whether_they_were_sent() -> None:
    line = line_of()
    (sent,) = entered(line, b"a")
    line.take()
    (unsent,) = entered(line, b"b")
    line.lose()
    assert sent.is_lost
    assert unsent.is_lost
    assert (sent.is_sent, unsent.is_sent) == (True, False)
    assert sent.answered.is_set()
    assert unsent.answered.is_set()
    assert (len(line), line.bytes) == (0, 0)


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "subscribe", "leave", "take", "answer"]), st.integers(0, 99)), max_size=80)


@given(STEPS)
def test_whatever_happens_nobody_gets_the_answer_of_another(steps: list[tuple[str, int]]) -> None:
    line, requests, wire = line_of(count_max=20), list[Request](), list[Request]()
    for number, (step, which) in enumerate(steps):
        if step in ("enter", "subscribe"):
            request = Request(b"%d;" % number, confirmations=2 if step == "subscribe" else 0)
            try:
                line.enter(request)
            except Overloaded:
                assert len(line) == 20
            else:
                requests.append(request)
        elif step == "leave" and requests:
            requests[which % len(requests)].is_abandoned = True
        elif step == "take":
            named = {request.data: request for request in requests}
            wire += [named[part + b";"] for part in line.take().split(b";") if part]
        elif step == "answer" and wire:
            answer(line, wire.pop(0))
    while wire:
        answer(line, wire.pop(0))
    line.take()
    assert all(request.reply in (request.data, None) for request in requests)
    assert all(request.answered.is_set() for request in requests if request.is_sent and request.reply is not None)


def answer(line: Line, request: Request) -> None:
    """As the server does: to the request that it read first."""
    if request.confirmations:
        line.confirm()
        assert not request.answered.is_set()
        line.confirm()
    else:
        line.answer(request.data)
        assert request.reply == request.data
    assert request.answered.is_set()


def test_a_request_unanswered_for_its_ticks_means_dead_and_progress_means_alive() -> None:
    pulse, first, second = Pulse(), Request(b"a"), Request(b"b")
    assert [pulse.tick(first, heard=0) for _ in range(TICKS)] == ["alive"] * TICKS
    assert [pulse.tick(second, heard=1) for _ in range(TICKS)] == ["alive"] * TICKS
    assert pulse.tick(second, heard=1) == "dead"


def test_bytes_without_an_answer_are_no_progress() -> None:
    pulse, request = Pulse(), Request(b"a")
    verdicts = [pulse.tick(request, heard=n) for n in range(TICKS + 1)]
    assert verdicts[-1] == "dead"


def test_a_connection_that_is_quiet_is_asked_something_and_one_that_speaks_is_not() -> None:
    pulse = Pulse()
    assert [pulse.tick(None, heard=0) for _ in range(TICKS)] == ["alive"] * (TICKS - 1) + ["quiet"]
    assert [pulse.tick(None, heard=n) for n in range(1, 2 * TICKS)] == ["alive"] * (2 * TICKS - 1)
