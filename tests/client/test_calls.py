"""Calls in flight on one socket: each gets its own answer, and one bad frame is the fault of one call."""

from __future__ import annotations

import pytest

from secureconnect.client.calls import Calls, encode
from secureconnect.client.errors import NotConnected, NotSendable, ServerRefused

UNREADABLE = {"id": None, "error": {"code": "VALIDATION_ERROR", "message": "The frame is not JSON"}}


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf"), b"bytes", {1, 2}])
def test_what_is_no_json_is_refused_before_it_leaves(value: object) -> None:
    with pytest.raises(NotSendable) as caught:
        encode({"content": value})
    assert (caught.value.code, caught.value.retryable) == ("VALIDATION_ERROR", False)


def test_what_is_larger_than_the_server_takes_is_refused_before_it_leaves() -> None:
    assert encode("ä", bytes_max=4) == '"ä"'.encode()
    with pytest.raises(NotSendable) as caught:
        encode("ää", bytes_max=4)
    assert caught.value.code == "TOO_LARGE"


def test_each_call_gets_its_own_answer_in_any_order() -> None:
    calls = Calls()
    first, second = calls.begin(), calls.begin()
    calls.answered({"id": second.number, "result": 2})
    calls.answered({"id": first.number, "error": {"code": "FORBIDDEN"}})
    calls.answered({"id": "unknown", "result": 3})
    assert (second.result, second.error) == (2, None)
    assert isinstance(first.error, ServerRefused)


def test_an_error_without_an_id_is_the_answer_to_the_only_call() -> None:
    calls = Calls()
    call = calls.begin()
    calls.answered(UNREADABLE)
    assert isinstance(call.error, ServerRefused)
    assert call.done.is_set()


def test_an_error_without_an_id_belongs_to_the_call_that_is_left_without_an_answer() -> None:
    calls = Calls()
    good, bad, also_good = calls.begin(), calls.begin(), calls.begin()
    calls.answered(UNREADABLE)
    later = calls.begin()
    assert not bad.done.is_set()
    calls.answered({"id": good.number, "result": 1})
    calls.answered({"id": also_good.number, "result": 3})
    assert isinstance(bad.error, ServerRefused)
    assert not later.done.is_set()


def test_a_call_that_was_given_up_leaves_open_who_was_meant() -> None:
    calls = Calls()
    given_up, other = calls.begin(), calls.begin()
    calls.answered(UNREADABLE)
    calls.end(given_up)
    assert not other.done.is_set()
    calls.answered({"id": other.number, "result": 1})
    assert other.result == 1


def test_an_error_that_no_call_caused_is_nobodys() -> None:
    calls = Calls()
    calls.answered(UNREADABLE)
    call = calls.begin()
    assert not call.done.is_set()


def test_the_end_of_the_connection_leaves_all_outcomes_open() -> None:
    calls = Calls()
    open_calls = [calls.begin(), calls.begin()]
    calls.lost(1012)
    assert all(isinstance(call.error, NotConnected) for call in open_calls)


def test_a_close_for_size_is_the_fault_of_the_largest() -> None:
    calls = Calls()
    small, large = calls.begin(), calls.begin()
    small.size, large.size = 10, 2_000_000
    calls.lost(1009)
    assert isinstance(small.error, NotConnected)
    assert isinstance(large.error, NotSendable)
    assert large.error.code == "TOO_LARGE"
