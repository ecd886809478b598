"""Degraded features: told on every change, with the moment it began, its cause and what still works."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from secureconnect.observe.status import FEATURES, Degraded, FeatureStatus


def test_at_first_all_is_well() -> None:
    assert FeatureStatus().degraded == {}


def test_a_degraded_feature_says_since_when_why_and_what_works() -> None:
    status = FeatureStatus()
    status.degrade("history", cause="cassandra", works="the last 50 messages", since_us=5)
    assert status.degraded == {"history": Degraded(5, "cassandra", "the last 50 messages")}


def test_listeners_are_told_of_each_change_and_of_nothing_else() -> None:
    status = FeatureStatus()
    told: list[Mapping[str, Degraded]] = []
    status.listen(told.append)
    status.degrade("push", cause="fcm", works="all else", since_us=1)
    status.degrade("push", cause="fcm", works="all else", since_us=2)
    status.recover("push")
    status.recover("push")
    assert told == [{"push": Degraded(1, "fcm", "all else")}, {}]


def test_a_second_cause_keeps_the_moment_it_began() -> None:
    status = FeatureStatus()
    status.degrade("send", cause="cassandra", works="accepted", since_us=1)
    status.degrade("send", cause="sql", works="cached members", since_us=9)
    assert status.degraded["send"] == Degraded(1, "sql", "cached members")


def test_what_a_reader_holds_does_not_change_under_it() -> None:
    status = FeatureStatus()
    before = status.degraded
    status.degrade("ai", cause="ai", works="static replies", since_us=1)
    assert before == {}


def test_a_feature_that_clients_do_not_know_is_a_programmers_error() -> None:
    assert len(set(FEATURES)) == len(FEATURES) == 16
    with pytest.raises(AssertionError, match="unknown feature"):
        FeatureStatus().degrade("teleport", cause="sql", works="", since_us=0)
