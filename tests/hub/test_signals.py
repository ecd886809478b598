"""Signals act once, here at once."""

from __future__ import annotations

import pytest

import secureconnect.hub.signals as signals_module
from secureconnect.hub.signals import Signals


def test_a_signal_given_here_has_acted_on_return() -> None:
    signals, got = Signals(), list[bytes]()
    signals.on("x", got.append)
    assert signals.give("x", b"1") == 1
    assert got == [b"1"]
    assert signals.give("unknown", b"2") == 2


def test_every_handler_of_a_name_is_called_in_order() -> None:
    signals, got = Signals(), list[str]()
    signals.on("x", lambda data: got.append("first"))
    signals.on("x", lambda data: got.append("second"))
    signals.give("x", b"")
    assert got == ["first", "second"]


def test_what_arrives_twice_or_late_acts_once() -> None:
    signals, got = Signals(), list[bytes]()
    signals.on("x", got.append)
    signals.hear("a", 1, [(2, "x", b"2")])
    signals.hear("a", 1, [(1, "x", b"1"), (2, "x", b"2")])
    signals.hear("b", 1, [(1, "x", b"b1")])
    assert got == [b"2", b"1", b"b1"]
    assert signals.repeated == 1


def test_a_new_life_of_a_node_counts_anew_and_the_old_one_is_over() -> None:
    signals, got = Signals(), list[bytes]()
    signals.on("x", got.append)
    signals.hear("a", 1, [(1, "x", b"old")])
    signals.hear("a", 2, [(1, "x", b"new")])
    signals.hear("a", 1, [(2, "x", b"straggler")])
    assert got == [b"old", b"new"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals_module, "SEEN_MAX", 3)
    signals = Signals()
    signals.hear("a", 1, [(n, "x", b"") for n in range(10)])
    assert list(signals._heard["a"].numbers) == [7, 8, 9]
