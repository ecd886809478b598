"""What is due about the leases of a node's users: pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.features.presence import leasing
from secureconnect.features.presence.leasing import LINGER_S, Leasing
from secureconnect.features.presence.store import LEASE_S, RENEW_S, USERS_MAX
from secureconnect.ids import UserId

ANN, BOB = UserId("ann"), UserId("bob")

Step = Callable[[Leasing], object]


def arrive(*users: UserId) -> Step:
    return lambda one: [one.arrived(user) for user in users]


def leave(user: UserId, now_s: float) -> Step:
    return lambda one: one.left(user, now_s)


def end(now_s: float) -> Step:
    return lambda one: one.end_lingering(now_s)


def hold(one: Leasing) -> None:
    one.held(one.to_hold())


def release(one: Leasing) -> None:
    one.released(one.to_release())


@dataclass(frozen=True)
class Row:
    title: str
    steps: Sequence[Step]
    here: Sequence[UserId] = ()
    to_hold: Sequence[UserId] = ()
    to_release: Sequence[UserId] = ()
    holding: Sequence[UserId] = ()


TABLE = (
    Row("nobody", []),
    Row("the first socket takes a lease", [arrive(ANN)], here=[ANN], to_hold=[ANN]),
    Row("a second one does not", [arrive(ANN), hold, arrive(ANN)], here=[ANN], holding=[ANN]),
    Row("a failed call is made again", [arrive(ANN, BOB), Leasing.to_hold], here=[ANN, BOB], to_hold=[ANN, BOB]),
    Row("one of two sockets leaves", [arrive(ANN, ANN), hold, leave(ANN, 0), end(99)], here=[ANN], holding=[ANN]),
    Row("who left lingers", [arrive(ANN), hold, leave(ANN, 0), end(LINGER_S - 0.1)], here=[ANN], holding=[ANN]),
    Row("and goes", [arrive(ANN), hold, leave(ANN, 0), end(LINGER_S)], to_release=[ANN]),
    Row("and is forgotten", [arrive(ANN), hold, leave(ANN, 0), end(LINGER_S), release]),
    Row("back in time", [arrive(ANN), hold, leave(ANN, 0), arrive(ANN), end(99)], here=[ANN], holding=[ANN]),
    Row(
        "back and away again lingers anew",
        [arrive(ANN), hold, leave(ANN, 0), arrive(ANN), leave(ANN, 4), end(LINGER_S + 3)],
        here=[ANN],
        holding=[ANN],
    ),
    Row("back too late takes a new lease", [arrive(ANN), hold, leave(ANN, 0), end(9), arrive(ANN)], here=[ANN], to_hold=[ANN]),
    Row("gone before the lease was taken, it may have been", [arrive(ANN), leave(ANN, 0), end(9)], to_release=[ANN]),
    Row(
        "each lingers for itself",
        [arrive(ANN, BOB), hold, leave(ANN, 0), leave(BOB, 3), end(LINGER_S)],
        here=[BOB],
        holding=[BOB],
        to_release=[ANN],
    ),
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
def test_the_table(row: Row) -> None:
    one = Leasing()
    for step in row.steps:
        step(one)
    assert [user for user in (ANN, BOB) if one.is_here(user)] == list(row.here)
    assert one.users == len(row.here)
    assert list(one.to_hold()) == list(row.to_hold)
    assert list(one.to_release()) == list(row.to_release)
    assert list(one.everybody()) == list(row.holding)


def test_arriving_says_whether_she_was_away() -> None:
    one = Leasing()
    assert one.arrived(ANN)
    assert not one.arrived(ANN)
    one.left(ANN, 0)
    one.left(ANN, 0)
    assert not one.arrived(ANN), "she lingered"


def test_batches_are_what_a_store_takes_at_once() -> None:
    one = Leasing()
    users = [UserId(f"u{n}") for n in range(USERS_MAX + 3)]
    arrive(*users)(one)
    assert list(one.to_hold()) == users[:USERS_MAX]
    hold(one)
    hold(one)
    one.lost()
    assert list(one.to_renew()) == users[:USERS_MAX]
    one.held(one.to_renew())
    assert list(one.to_renew()) == users[USERS_MAX:]
    one.held(one.to_renew())
    assert list(one.to_renew()) == []
    for user in users:
        one.left(user, 0)
    one.end_lingering(LINGER_S)
    assert list(one.to_release()) == users[:USERS_MAX]


def test_leases_to_be_given_back_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasing, "GONE_MAX", 1)
    one = Leasing()
    for user in (ANN, BOB):
        one.arrived(user)
        one.left(user, 0)
    assert list(one.end_lingering(LINGER_S)) == [ANN, BOB]
    assert list(one.to_release()) == [BOB]


def test_a_thirtieth_is_renewed_each_second_the_oldest_first() -> None:
    one = Leasing()
    users = [UserId(f"u{n}") for n in range(90)]
    arrive(*users)(one)
    hold(one)
    for second in range(60):
        one.pass_time(RENEW_S / 30)
        start = second * 3 % 90
        assert list(one.to_renew()) == users[start : start + 3]
        one.held(one.to_renew())


@given(st.lists(st.tuples(st.sampled_from("+-."), st.integers(0, 9)), max_size=400))
def test_no_lease_runs_out_whoever_comes_and_goes(deeds: list[tuple[str, int]]) -> None:
    """A second passes with each deed; everything due is done at once."""
    one, count, taken_s = Leasing(), [0] * 10, dict[UserId, float]()
    for now_s, (deed, number) in enumerate(deeds + [(".", 0)] * 120):
        user = UserId(f"u{number}")
        if deed == "+":
            one.arrived(user)
            count[number] += 1
        elif deed == "-" and count[number]:
            one.left(user, now_s)
            count[number] -= 1
        one.pass_time(1)
        one.end_lingering(now_s)
        for users in (one.to_hold(), one.to_renew()):
            one.held(users)
            taken_s |= dict.fromkeys(users, now_s)
        for gone in one.to_release():
            taken_s.pop(gone, None)
        one.released(one.to_release())
        assert sorted(taken_s) == sorted(one.everybody())
        assert all(now_s - then_s < LEASE_S - RENEW_S / 2 for then_s in taken_s.values())
