"""Leases of presence: what every implementation of LeaseStore must do."""

from __future__ import annotations

import pytest
import trio

from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.leases import RedisLeaseStore
from secureconnect.backends.system import SystemClock
from secureconnect.features.presence.store import USERS_MAX, Change, LeaseStore
from secureconnect.ids import UserId

ANN, BOB = UserId("ann"), UserId("bob")


@pytest.fixture
def store(shared: Client | None) -> LeaseStore:
    return MemoryLeaseStore(SystemClock()) if shared is None else RedisLeaseStore(shared)


async def test_who_is_held_first_comes_and_renewing_is_no_news(store: LeaseStore) -> None:
    assert await store.hold("a", [ANN, BOB, ANN]) == Change(came=[ANN, BOB])
    assert await store.hold("a", [ANN]) == Change(came=[])
    assert await store.hold("b", [ANN]) == Change(came=[])
    assert list(await store.present([UserId("eve"), BOB, ANN])) == [BOB, ANN]
    assert list(await store.present([])) == []


async def test_a_user_goes_when_the_last_node_releases_and_only_then(store: LeaseStore) -> None:
    await store.hold("a", [ANN])
    await store.hold("b", [ANN])
    assert await store.release("a", [ANN, ANN, BOB]) == Change(went=[])
    assert list(await store.present([ANN])) == [ANN]
    assert await store.release("b", [ANN]) == Change(went=[ANN])
    assert await store.release("b", [ANN]) == Change(went=[])
    assert list(await store.present([ANN])) == []
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
    assert list(await store.present([ANN, BOB])) == [BOB]


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
