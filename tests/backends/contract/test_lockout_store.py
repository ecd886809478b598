"""Tallies of wrong passwords: what every implementation of LockoutStore must do."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from tests.services.redis import RedisServer

from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.redis import lockout as scripts
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.link import Script
from secureconnect.backends.redis.lockout import RedisLockoutStore
from secureconnect.backends.system import SystemClock
from secureconnect.features.lockout.model import FAILURES_MAX, LOCK_US, WINDOW_US, Tally, failed, merged
from secureconnect.features.lockout.store import LockoutStore

EMPTY = Tally()


@pytest.fixture
def store(shared: Client | None) -> LockoutStore:
    return MemoryLockoutStore(SystemClock()) if shared is None else RedisLockoutStore(shared)


def now_us() -> int:
    return SystemClock().now_us()


async def test_the_fifth_wrong_password_locks_for_a_quarter_of_an_hour(store: LockoutStore) -> None:
    assert await store.read("a") == Tally()
    tallies = [await store.fail("a") for _ in range(FAILURES_MAX)]
    assert [tally.failures for tally in tallies] == [1, 2, 3, 4, 5]
    assert [tally.lock_left_s(now_us()) > 0 for tally in tallies] == [False] * 4 + [True]
    assert 890 < tallies[-1].lock_left_s(now_us()) <= 900
    assert await store.read("a") == tallies[-1]
    assert await store.fail("a") == tallies[-1], "while it is locked nothing is counted and nothing prolonged"
    assert await store.read("b") == Tally()


async def test_failures_at_the_same_moment_are_all_counted(store: LockoutStore) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(FAILURES_MAX):
            nursery.start_soon(store.fail, "a")
    assert (await store.read("a")).lock_left_s(now_us()) > 0


async def test_the_right_password_clears_failures_and_no_lock(store: LockoutStore) -> None:
    await store.fail("a")
    await store.clear("a")
    assert await store.read("a") == Tally()
    for _ in range(FAILURES_MAX):
        locked = await store.fail("a")
    await store.clear("a")
    assert await store.read("a") == locked


async def test_merging_takes_the_higher_count_and_the_later_end_and_never_resets(store: LockoutStore) -> None:
    first = await store.fail("a")
    elsewhere = Tally(FAILURES_MAX, now_us(), now_us() + LOCK_US)
    assert await store.merge("a", elsewhere) == merged(first, elsewhere)
    assert await store.merge("a", elsewhere) == merged(first, elsewhere), "twice is once"
    assert await store.merge("a", Tally(2, 5, 0)) == merged(first, elsewhere)
    assert await store.merge("b", elsewhere) == await store.read("b") == elsewhere


async def test_what_is_over_when_it_is_merged_locks_nobody(store: LockoutStore) -> None:
    await store.merge("a", Tally(FAILURES_MAX, now_us() - 2 * WINDOW_US, now_us() - 1))
    assert (await store.fail("a")).failures == 1


@pytest.mark.service
async def test_the_scripts_decide_as_the_model_does_at_any_time(redis_client: Client) -> None:
    """Their clock is replaced by arguments, and nothing expires by itself; everything else runs as it is."""
    arguments: list[Any] = [WINDOW_US, LOCK_US, FAILURES_MAX]

    async def run(script: Script, now_us: int, tally: Tally = EMPTY) -> Tally:
        text = script.text.replace("redis.call('TIME')", "{ARGV[7], ARGV[8]}").replace(
            "redis.call('PEXPIRE'", "tostring('PEXPIRE'"
        )
        numbers = [tally.failures, tally.since_us, tally.locked_until_us, now_us // 1_000_000, now_us % 1_000_000]
        reply = await redis_client.script(
            Script(text), keys=["k"], arguments=[*arguments, *numbers], changes=True, is_repeatable=False
        )
        assert isinstance(reply, list)
        return Tally(*reply)  # type: ignore[arg-type]  # integers

    chance, now, tally = random.Random(7), 1_800_000_000_000_000, Tally()
    for _ in range(500):
        now += round(chance.expovariate(1 / (WINDOW_US / 4)))
        tally = tally if now < tally.ends_us() else Tally()
        what = chance.choice(["read", "fail", "fail", "fail", "merge", "clear"])
        if what == "fail":
            tally = failed(tally, now)
            assert await run(scripts.FAIL, now) == tally
        elif what == "merge":
            other = Tally(
                chance.randrange(6), now - chance.randrange(WINDOW_US), chance.choice([0, now + chance.randrange(LOCK_US)])
            )
            tally = merged(tally, other)
            assert await run(scripts.MERGE, now, other) == tally
        elif what == "clear":
            tally = tally if tally.lock_left_s(now) else Tally()
            assert await run(scripts.CLEAR, now) == tally
        else:
            assert await run(scripts.READ, now) == tally


@pytest.mark.service
async def test_a_tally_is_gone_from_the_server_when_it_ends(redis_client: Client, redis_server: RedisServer) -> None:
    store = RedisLockoutStore(redis_client)
    await store.fail("a")
    left_ms = redis_server.ask("PTTL", f"{scripts.KEY}a")
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= WINDOW_US // 1000


async def test_memory_keeps_locks_longest_and_its_bound() -> None:
    store = MemoryLockoutStore(SystemClock(), tallies_max=100)
    for _ in range(FAILURES_MAX):
        await store.fail("locked")
    for n in range(1_000):
        await store.fail(f"{n}")
        assert len(store) <= 100
    assert (await store.read("locked")).lock_left_s(now_us()) > 0
