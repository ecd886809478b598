"""The switch: away at once, back only when it held; by tables and against a model that looks at the whole history."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.fallback import Switch, SwitchLimits

Event = Literal["refused", "doubted", "held"]
LIMITS = SwitchLimits()


def play(switch: Switch, history: list[tuple[float, Event]]) -> None:
    for now_s, event in history:
        if event == "doubted":
            switch.doubted()
        else:
            (switch.refused if event == "refused" else switch.held)(now_s)


def model(history: list[tuple[float, Event]], limits: SwitchLimits) -> bool:
    """Away: refused once, and since the last time no row of good probes was long enough."""
    refusals = [at for at, (_, event) in enumerate(history) if event == "refused"]
    if not refusals:
        return False
    for event, row in groupby(history[refusals[-1] + 1 :], key=lambda one: one[1]):
        times = [now_s for now_s, _ in row]
        if event == "held" and any(
            count >= limits.probes_min and now_s - times[0] >= limits.held_s for count, now_s in enumerate(times, start=1)
        ):
            return False
    return True


@pytest.mark.parametrize(
    ("history", "is_away"),
    [
        ([], False),
        ([(1, "held")], False),
        ([(1, "doubted")], False),
        ([(1, "refused")], True),
        ([(1, "refused"), (2, "held"), (3, "held"), (4, "held")], False),
        ([(1, "refused"), (2, "held"), (3, "held")], True),
        ([(1, "refused"), (2, "held"), (2.1, "held"), (2.2, "held"), (2.3, "held")], True),
        ([(1, "refused"), (2, "held"), (9, "held")], True),
        ([(1, "refused"), (2, "held"), (3, "held"), (3.5, "doubted"), (4, "held"), (5, "held")], True),
        ([(1, "refused"), (2, "held"), (3, "held"), (3.5, "refused"), (4, "held"), (5, "held")], True),
    ],
)
def test_it_is_away_from_the_first_refusal_until_it_held_for_a_while(history: list[tuple[float, Event]], is_away: bool) -> None:
    switch = Switch()
    play(switch, history)
    assert switch.is_away is is_away is model(history, LIMITS)


def test_each_change_is_said_once_with_its_moment() -> None:
    switch = Switch(SwitchLimits(probes_min=1, held_s=0.0))
    assert [switch.refused(1.0), switch.refused(2.0)] == [True, False]
    assert (switch.since_s, switch.away_total) == (1.0, 1)
    assert [switch.held(3.0), switch.held(4.0)] == [True, False]
    assert (switch.since_s, switch.away_total) == (3.0, 1)


EVENTS = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0]), st.sampled_from(["refused", "doubted", "held", "held"])))


@given(steps=EVENTS, probes=st.integers(1, 4), held_s=st.sampled_from([0.0, 0.5, 2.0]))
def test_after_every_event_it_says_what_the_whole_history_says(
    steps: list[tuple[float, Event]], probes: int, held_s: float
) -> None:
    limits, history, now_s = SwitchLimits(probes_min=probes, held_s=held_s), list[tuple[float, Event]](), 0.0
    switch = Switch(limits)
    for pause_s, event in steps:
        now_s += pause_s
        was = switch.is_away
        history.append((now_s, event))
        play(switch, history[-1:])
        assert switch.is_away is model(history, limits)
        if switch.is_away != was:
            assert switch.since_s == now_s
