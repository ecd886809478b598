"""Where a subscriber stands, case by case."""

from __future__ import annotations

import pytest

from secureconnect.hub.frame import Frame
from secureconnect.hub.history import History
from secureconnect.hub.place import Place, place_in_history, place_in_log


@pytest.mark.parametrize(
    ("case", "after", "first", "place", "cursor"),
    [
        ("from now on", None, 1, Place(50, 1, True, 0), 50),
        ("nothing missed", 50, 1, Place(50, 1, True, 0), 50),
        ("some missed", 45, 1, Place(50, 1, True, 5), 45),
        ("as many as are replayed", 40, 1, Place(50, 1, True, 10), 40),
        ("one more", 39, 1, Place(50, 1, False, 11), 50),
        ("from the beginning", 0, 41, Place(50, 41, False, 50), 50),
        ("just before the first that is kept", 44, 45, Place(50, 45, True, 6), 44),
        ("retention has removed the next", 43, 45, Place(50, 45, False, 7), 50),
        ("beyond the end: restored from a backup", 51, 1, Place(50, 1, False, 0, reset=True), 50),
        ("may see only what is not there yet", None, 53, Place(52, 53, True, 0), 52),
        ("came back before it was there", 52, 53, Place(52, 53, True, 0), 52),
        ("a position of a channel without a log", "e-4", 1, Place(50, 1, False, 0), 50),
    ],
)
def test_a_place_in_a_log(case: str, after: int | str | None, first: int, place: Place, cursor: int) -> None:
    assert place_in_log(after, tail=50, first=first, entries_max=10) == (place, cursor), case


@pytest.mark.parametrize(
    ("case", "after", "place", "cursor"),
    [
        ("from now on", None, Place("e-5", "e-3", True, 0), 5),
        ("some missed", "e-3", Place("e-5", "e-3", True, 2), 3),
        ("just before the first that is kept", "e-2", Place("e-5", "e-3", True, 3), 2),
        ("forgotten", "e-1", Place("e-5", "e-3", False, 0), 5),
        ("never given", "e-6", Place("e-5", "e-3", False, 0), 5),
        ("another epoch", "f-3", Place("e-5", "e-3", False, 0), 5),
        ("a sequence", 3, Place("e-5", "e-3", False, 0), 5),
    ],
)
def test_a_place_in_a_history(case: str, after: int | str | None, place: Place, cursor: int) -> None:
    history = History("e", events_max=3, keep_s=60.0)
    for _ in range(5):
        history.append(lambda position: Frame(b"", "user:1", "x", position), 0.0)
    assert place_in_history(after, history) == (place, cursor), case
