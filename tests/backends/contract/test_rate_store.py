"""Buckets of rate limits: what every implementation of RateStore must do."""

from __future__ import annotations

import math
import random

import pytest
import trio
from tests.services.redis import RedisServer

from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.link import Script
from secureconnect.backends.redis.rates import KEY, TAKE, RedisRateStore
from secureconnect.backends.system import SystemClock
from secureconnect.features.rates.model import Rate, take
from secureconnect.features.rates.store import RateStore

HOUR = Rate(5, 3_600)
"""So slow that nothing comes back during a test."""


@pytest.fixture
def store(shared: Client | None) -> RateStore:
    return MemoryRateStore(SystemClock()) if shared is None else RedisRateStore(shared)


async def test_a_full_bucket_lets_its_limit_through_and_says_when_to_come_back(store: RateStore) -> None:
    verdicts = [await store.take("a", HOUR) for _ in range(7)]
    assert [verdict.is_allowed for verdict in verdicts] == [True] * 5 + [False] * 2
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert {verdict.limit for verdict in verdicts} == {5}
    assert verdicts[0].retry_after_s == 0
    assert 700 < verdicts[-1].retry_after_s <= 720
    assert 3_500 < verdicts[-1].reset_s <= 3_600


async def test_keys_do_not_share(store: RateStore) -> None:
    for _ in range(6):
        await store.take("a", HOUR)
    assert (await store.take("b", HOUR)).is_allowed


async def test_what_comes_at_the_same_moment_is_counted_call_by_call(store: RateStore) -> None:
    allowed: list[bool] = []

    async def call() -> None:
        allowed.append((await store.take("a", HOUR)).is_allowed)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(call)
    assert sum(allowed) == 5


async def test_tokens_come_back_with_time_and_refused_calls_cost_none(store: RateStore) -> None:
    rate = Rate(2, 0.2)
    with trio.fail_after(5):
        while (await store.take("a", rate)).is_allowed:
            pass
        refused = 0
        while not (await store.take("a", rate)).is_allowed:
            refused += 1
            await trio.sleep(0.005)
    assert refused > 0


@pytest.mark.service
async def test_the_script_decides_as_the_model_does_at_any_time(redis_client: Client) -> None:
    """Its clock is replaced by an argument, and nothing ends by the server's own; everything else runs as it is."""
    text = TAKE.text.replace("redis.call('TIME')", "{ARGV[3], ARGV[4]}")
    script = Script(text.replace(", 'PX', math.ceil((after - now) / 1000)", ""))
    assert "'TIME'" not in script.text
    assert "'PX'" not in script.text
    chance, now_us = random.Random(7), 1_800_000_000_000_000
    for rate in (Rate(1, 1), Rate(3, 60), Rate(7, 10), Rate(100, 60), Rate(5_000, 1)):
        full_at_us, key = 0, f"{rate}"
        for _ in range(300):
            now_us += round(rate.token_us * chance.expovariate(1.3))
            full_at_us, verdict = take(rate, full_at_us, now_us)
            arguments = [rate.token_us, rate.limit, now_us // 1_000_000, now_us % 1_000_000]
            reply = await redis_client.script(script, keys=[key], arguments=arguments, changes=True, is_repeatable=False)
            expected = [int(verdict.is_allowed), verdict.remaining, verdict.reset_s, verdict.retry_after_s]
            assert isinstance(reply, list)
            assert [reply[0], reply[1], reply[2] / 1e6, reply[3] / 1e6] == expected  # type: ignore[operator]  # integers


@pytest.mark.service
async def test_a_bucket_is_gone_from_the_server_when_it_is_full(redis_client: Client, redis_server: RedisServer) -> None:
    store = RedisRateStore(redis_client)
    verdict = await store.take("a", HOUR)
    left_ms = redis_server.ask("PTTL", f"{KEY}a")
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= math.ceil(verdict.reset_s * 1000)


class SetClock:
    us = 1_000_000_000

    def now_us(self) -> int:
        return self.us


async def test_memory_forgets_full_buckets_first_and_keeps_its_bound() -> None:
    clock = SetClock()
    store = MemoryRateStore(clock, buckets_max=100)
    for n in range(100):
        await store.take(f"short {n}", Rate(1, 1))
    clock.us += 2_000_000
    for _ in range(5):
        await store.take("busy", HOUR)
    assert len(store) <= 100
    assert not (await store.take("busy", HOUR)).is_allowed
    for n in range(1_000):
        await store.take(f"long {n}", HOUR)
        assert len(store) <= 100
