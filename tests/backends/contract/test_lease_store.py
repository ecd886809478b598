"""Leases of presence: what every implementation of LeaseStore must do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from secureconnect.backends.memory import leases as memory_leases
from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.backends.redis import leases as redis_leases
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.leases import RedisLeaseStore
from secureconnect.backends.system import SystemClock
from secureconnect.features.presence.store import USERS_MAX, Change, LeaseStore, Sighting
from secureconnect.ids import UserId

ANN, BOB = UserId("ann"), UserId("bob")


@pytest.fixture
def store(shared: Client | None) -> LeaseStore:
    return MemoryLeaseStore(SystemClock()) if shared is None else RedisLeaseStore(shared)


async def there(store: LeaseStore, users: Sequence[UserId]) -> list[UserId]:
    return [one.user for one in await store.look(users) if one.is_there]


async def test_who_is_held_first_comes_and_renewing_is_no_news(store: LeaseStore) -> None:
    assert await store.hold("a", [ANN, BOB, ANN]) == Change(came=[ANN, BOB])
    assert await store.hold("a", [ANN]) == Change(came=[])
    assert await store.hold("b", [ANN]) == Change(came=[])
    assert await there(store, [UserId("eve"), BOB, ANN]) == [BOB, ANN]
    assert await there(store, []) == []


async def test_a_user_goes_when_the_last_node_releases_and_only_then(store: LeaseStore) -> None:
    await store.hold("a", [ANN])
    await store.hold("b", [ANN])
    assert await store.release("a", [ANN, ANN, BOB]) == Change(went=[])
    assert await there(store, [ANN]) == [ANN]
    assert await store.release("b", [ANN]) == Change(went=[ANN])
    assert await store.release("b", [ANN]) == Change(went=[])
    assert await there(store, [ANN]) == []
    assert await store.hold("b", [ANN]) == Change(came=[ANN])


async def test_a_lease_that_is_due_is_announced_by_one_and_one_that_is_not_stays(store: LeaseStore) -> None:
    await store.hold("dead", [ANN, BOB], lease_s=0)
    await store.hold("b", [BOB])
    changes: list[Change] = []

    async def expire() -> None:
        changes.append(await store.expire())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(expire)
    assert [list(change.went) for change in changes if change.went] == [[ANN]]
    assert await there(store, [ANN, BOB]) == [BOB]


async def test_a_renewed_lease_is_not_due(store: LeaseStore) -> None:
    await store.hold("a", [ANN], lease_s=0)
    await store.hold("a", [ANN])
    assert await store.expire() == Change(went=[])


async def test_a_dead_node_with_many_users_is_cleared_in_steps(store: LeaseStore) -> None:
    users = [UserId(f"u{n}") for n in range(USERS_MAX + 10)]
    for start in (0, USERS_MAX):
        await store.hold("dead", users[start : start + USERS_MAX], lease_s=0)
    went = [list((await store.expire()).went) for _ in range(3)]
    assert [len(one) for one in went] == [USERS_MAX, 10, 0]
    assert sorted(went[0] + went[1]) == sorted(users)


async def test_of_who_went_it_is_known_when_until_she_is_back(store: LeaseStore) -> None:
    assert await store.look([ANN]) == [Sighting(ANN, False, None)]
    before_us = SystemClock().now_us()
    await store.hold("a", [ANN])
    assert await store.look([ANN, BOB]) == [Sighting(ANN, True), Sighting(BOB, False)]
    await store.release("a", [ANN])
    (gone,) = await store.look([ANN])
    assert gone.went_us is not None
    assert before_us - 1_000 <= gone.went_us <= SystemClock().now_us() + 1_000
    await store.hold("b", [ANN], lease_s=0)
    assert await store.look([ANN]) == [Sighting(ANN, True)], "due, and not removed yet"


async def test_who_went_longest_ago_is_forgotten_first(store: LeaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_leases, redis_leases):
        monkeypatch.setattr(module, "GONE_MAX", 1)
    for user in (ANN, BOB):
        await store.hold("a", [user])
        await store.release("a", [user])
    await store.expire()
    assert [one.went_us is not None for one in await store.look([ANN, BOB])] == [False, True]
