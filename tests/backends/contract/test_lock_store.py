"""Locked accounts on disk: what every implementation of LockStore must do."""

from __future__ import annotations

import pytest
import trio

from secureconnect.backends.memory.locks import MemoryLocks
from secureconnect.backends.sql.engine import Engine
from secureconnect.backends.sql.locks import SqlLocks
from secureconnect.features.lockout.model import Lock
from secureconnect.features.lockout.store import LockStore

KEY = "ann@example.org 10.0.0.1"


@pytest.fixture
def store(engine: Engine | None) -> LockStore:
    return MemoryLocks() if engine is None else SqlLocks(engine)


async def all_of(store: LockStore, *, live_us: int = 0) -> list[tuple[str, int]]:
    return [(lock.key, lock.until_us) for lock in await store.since(0, live_us=live_us, limit=100)]


async def test_locks_come_back_in_the_order_of_their_numbers(store: LockStore) -> None:
    for n in range(5):
        await store.add(f"{n}", 1_000 + n)
    found = await store.since(0, live_us=0, limit=100)
    assert [(lock.key, lock.until_us) for lock in found] == [(f"{n}", 1_000 + n) for n in range(5)]
    assert sorted(lock.number for lock in found) == [lock.number for lock in found]
    assert list(await store.since(found[2].number, live_us=0, limit=1)) == [
        Lock(found[3].number, "3", 1_003),
    ]
    assert await store.since(found[4].number, live_us=0, limit=1) == []


async def test_a_later_end_is_a_new_row_and_an_earlier_one_is_none(store: LockStore) -> None:
    await store.add(KEY, 1_000)
    await store.add(KEY, 1_000)
    await store.add(KEY, 900)
    assert await all_of(store) == [(KEY, 1_000)]
    await store.add(KEY, 1_100)
    assert max(until_us for _, until_us in await all_of(store)) == 1_100
    ((_, newest),) = [(key, until) for key, until in await all_of(store, live_us=1_050)]
    assert newest == 1_100


async def test_what_ended_is_not_read_and_goes_a_bounded_number_at_a_time(store: LockStore) -> None:
    for n in range(5):
        await store.add(f"{n}", 1_000 + n)
    assert await all_of(store, live_us=1_002) == [("3", 1_003), ("4", 1_004)]
    assert await store.purge(1_003, limit=2) == 2
    assert await store.purge(1_003, limit=2) == 1
    assert await store.purge(1_003, limit=2) == 0
    assert await all_of(store) == [("3", 1_003), ("4", 1_004)]


async def test_the_same_lock_from_two_nodes_at_once_is_kept(store: LockStore) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(store.add, KEY, 1_000)
    assert set(await all_of(store)) == {(KEY, 1_000)}
