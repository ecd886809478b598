"""Rate limits: the bucket as a table and a model, and what happens while the shared buckets are away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.errors import BackendDown, BreakerOpen, Overloaded, Unavailable
from secureconnect.features.rates.model import Rate, Verdict, take
from secureconnect.features.rates.service import Rates

LIMITS = {"login": Rate(10), "refresh": Rate(10)}


class SetClock:
    us = 1_000_000_000

    def now_us(self) -> int:
        return self.us


class AwayStore:
    def __init__(self, error: Unavailable) -> None:
        self.error: Unavailable | None = error
        self.store = MemoryRateStore(SetClock())

    async def take(self, key: str, rate: Rate) -> Verdict:
        if self.error is not None:
            raise self.error
        return await self.store.take(key, rate)


def test_a_bucket_empties_call_by_call_and_fills_token_by_token() -> None:
    rate, full_at_us, allowed = Rate(3, 3), 0, []
    for now_s in (10, 10, 10, 10, 10.9, 11, 11.5, 20, 20, 20, 20):
        full_at_us, verdict = take(rate, full_at_us, round(now_s * 1e6))
        allowed.append((now_s, verdict.is_allowed, verdict.remaining, verdict.retry_after_s))
    assert allowed == [
        (10, True, 2, 0), (10, True, 1, 0), (10, True, 0, 0), (10, False, 0, 1), (10.9, False, 0, 0.1), (11, True, 0, 0),
        (11.5, False, 0, 0.5), (20, True, 2, 0), (20, True, 1, 0), (20, True, 0, 0), (20, False, 0, 1),
    ]  # fmt: skip


def test_a_clock_that_jumps_back_shuts_nobody_out() -> None:
    rate = Rate(3, 3)
    full_at_us, _ = take(rate, 0, 3_600_000_000)
    full_at_us, verdict = take(rate, full_at_us, 1_000_000)
    assert (verdict.is_allowed, verdict.remaining) == (True, 2)
    assert [take(rate, full_at_us + n, 1_000_000)[1].is_allowed for n in (0, 2_000_000)] == [True, False]


@given(st.integers(1, 50), st.floats(0.01, 600), st.lists(st.integers(0, 2_000_000), min_size=1, max_size=200))
def test_no_time_whatever_sees_more_than_limit_and_what_came_back(limit: int, period_s: float, gaps_us: list[int]) -> None:
    rate, full_at_us, now_us, allowed_us = Rate(limit, period_s), 0, 1_000_000_000, list[int]()
    for gap_us in gaps_us:
        now_us += gap_us
        full_at_us, verdict = take(rate, full_at_us, now_us)
        assert 0 <= verdict.remaining < limit
        if verdict.is_allowed:
            allowed_us.append(now_us)
            for first, then_us in enumerate(allowed_us):
                assert len(allowed_us) - first <= limit + (now_us - then_us) // rate.token_us
        else:
            retry_us = now_us + round(verdict.retry_after_s * 1e6)
            assert take(rate, full_at_us, retry_us)[1].is_allowed
            assert not take(rate, full_at_us, retry_us - 1)[1].is_allowed


async def test_a_class_lets_its_number_through_for_each_who() -> None:
    rates = Rates(LIMITS, MemoryRateStore(SetClock()), shared=MemoryRateStore(SetClock()), nodes=lambda: 2)
    assert rates.take_now("login", "ann") is None, "the others must be asked"
    for n in range(10):
        verdict = await rates.take("login", "ann")
        assert (verdict.is_allowed, verdict.limit, verdict.remaining, verdict.is_local) == (True, 10, 9 - n, False)
    refused = await rates.take("login", "ann")
    assert (refused.is_allowed, refused.retry_after_s) == (False, 6)
    assert (await rates.take("login", "bob")).is_allowed
    assert (await rates.take("refresh", "ann")).is_allowed


def test_a_node_alone_answers_at_once_and_is_not_degraded() -> None:
    rates = Rates(LIMITS, MemoryRateStore(SetClock()))
    verdicts = [rates.take_now("login", "ann") for _ in range(11)]
    assert [verdict is not None and verdict.is_allowed for verdict in verdicts] == [True] * 10 + [False]
    assert (rates.is_local, rates.local_total) == (False, 0)


@pytest.mark.parametrize("error", [BackendDown("redis"), BreakerOpen(), Overloaded()])
async def test_while_the_shared_buckets_are_away_a_node_gives_its_own_share(error: Unavailable) -> None:
    shared = AwayStore(error)
    rates = Rates(LIMITS, MemoryRateStore(SetClock()), shared=shared, nodes=lambda: 3)
    verdicts = [await rates.take("login", "ann") for _ in range(4)]
    assert [(verdict.is_allowed, verdict.is_local) for verdict in verdicts] == [(True, True)] * 3 + [(False, True)]
    assert (rates.is_local, rates.local_total) == (True, 4)
    shared.error = None
    assert (await rates.take("login", "ann")).remaining == 9, "what was counted meanwhile is dropped"
    assert (rates.is_local, rates.local_total) == (False, 4)


def test_a_share_is_never_nothing() -> None:
    assert Rate(3).shared_by(10) == Rate(1)
    assert Rate(3).shared_by(0) == Rate(3)
