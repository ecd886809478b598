"""Wrong passwords, counted: pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from secureconnect.features.lockout.model import FAILURES_MAX, LOCK_US, WINDOW_US, Tally, failed, lockout_key, merged

NOW_US = 1_800_000_000_000_000


def test_failures_in_a_window_lock_and_a_lock_is_not_prolonged() -> None:
    tally = Tally()
    for n in range(FAILURES_MAX):
        assert tally.lock_left_s(NOW_US + n) == 0
        tally = failed(tally, NOW_US + n)
    locked = Tally(FAILURES_MAX, NOW_US, NOW_US + FAILURES_MAX - 1 + LOCK_US)
    assert tally == locked
    assert failed(tally, locked.locked_until_us - 1) == locked
    assert failed(tally, locked.locked_until_us) == Tally(1, locked.locked_until_us, 0), "then it starts anew"


def test_a_window_that_is_over_counts_no_more() -> None:
    tally = Tally(FAILURES_MAX - 1, NOW_US, 0)
    assert failed(tally, NOW_US + WINDOW_US - 1).locked_until_us > 0
    assert failed(tally, NOW_US + WINDOW_US) == Tally(1, NOW_US + WINDOW_US, 0)


TALLIES = st.builds(Tally, st.integers(0, 9), st.integers(0, 99), st.integers(0, 99))


@given(TALLIES, TALLIES, TALLIES)
def test_merging_has_no_order_and_takes_nothing_away(one: Tally, two: Tally, three: Tally) -> None:
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(one, one) == one
    both = merged(one, two)
    assert both.locked_until_us >= max(one.locked_until_us, two.locked_until_us)
    assert both.failures >= max(one.failures, two.failures)


def test_a_key_is_of_one_account_from_one_address() -> None:
    assert lockout_key("Ann@Example.org", "10.0.0.1") == lockout_key("ann@example.org", "10.0.0.1")
    assert lockout_key("ann@example.org", "10.0.0.1") != lockout_key("ann@example.org", "10.0.0.2")
