"""A channel's own history: bounded by count and age, and honest about what it no longer has."""

from __future__ import annotations

import pytest

from secureconnect.hub.frame import Frame
from secureconnect.hub.history import History


def make(position: str) -> Frame:
    return Frame(b"{}", "user:1", "x", position)


def history_of(count: int, *, events_max: int = 5, keep_s: float = 60.0) -> History:
    history = History("e", events_max=events_max, keep_s=keep_s)
    for n in range(count):
        history.append(make, float(n))
    return history


def sequences(history: History, after: int, limit: int = 99) -> list[int]:
    return [item.sequence for item in history.after(after, limit)]


def test_positions_are_epoch_and_offset_and_the_frame_carries_its_own() -> None:
    history = history_of(0)
    assert history.append(make, 0.0).frame.position == "e-1"
    assert (history.first, history.tail) == (1, 1)


@pytest.mark.parametrize(
    ("position", "offset"),
    [("e-3", 3), ("e-0", 0), ("f-3", None), ("e-", None), ("e-x", None), ("e--3", None), ("", None), (3, None), ("e-²", None)],
)
def test_only_positions_of_this_epoch_mean_something(position: int | str, offset: int | None) -> None:
    assert history_of(3).offset(position) == offset


def test_the_oldest_go_first_by_count_and_by_age() -> None:
    history = history_of(7)
    assert sequences(history, 0) == [3, 4, 5, 6, 7]
    history.forget(63.5)
    assert sequences(history, 0) == [5, 6, 7]
    history.forget(999.0)
    assert sequences(history, 0) == []
    assert (history.first, history.tail) == (8, 7)
    assert history.append(make, 999.0).sequence == 8


def test_what_follows_a_position_comes_in_order_and_in_pages() -> None:
    history = history_of(5)
    assert sequences(history, 2) == [3, 4, 5]
    assert sequences(history, 2, limit=2) == [3, 4]
    assert sequences(history, 5) == []


def test_after_a_renewal_no_older_position_is_known_and_offsets_go_on() -> None:
    history = history_of(3)
    history.renew("f")
    assert history.offset("e-2") is None
    assert history.cursor == history.tail == 3
    assert history.append(make, 9.0).frame.position == "f-4"
