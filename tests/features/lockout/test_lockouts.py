"""Locking an account while the shared tallies are there, away, and back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.locks import MemoryLocks
from secureconnect.errors import BackendDown
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.model import FAILURES_MAX, LOCK_US, AccountLocked, Lock, Tally
from secureconnect.features.lockout.service import LOCKED, Lockouts

ANN, HERE, THERE = "ann@example.org", "10.0.0.1", "10.0.0.2"


class SetClock:
    us = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self.us


class SharedStore:
    """In memory, and away when told."""

    def __init__(self, clock: SetClock) -> None:
        self.is_away = False
        self.store = MemoryLockoutStore(clock)

    def _answer(self) -> MemoryLockoutStore:
        if self.is_away:
            raise BackendDown("redis")
        return self.store

    async def read(self, key: str) -> Tally:
        return await self._answer().read(key)

    async def fail(self, key: str) -> Tally:
        return await self._answer().fail(key)

    async def merge(self, key: str, tally: Tally) -> Tally:
        return await self._answer().merge(key, tally)

    async def clear(self, key: str) -> None:
        await self._answer().clear(key)


class Rows(MemoryLocks):
    """The table of locks, away when told."""

    is_away = False

    async def add(self, key: str, until_us: int) -> None:
        if self.is_away:
            raise BackendDown("sql")
        await super().add(key, until_us)

    async def since(self, after: int, *, live_us: int, limit: int) -> Sequence[Lock]:
        if self.is_away:
            raise BackendDown("sql")
        return await super().since(after, live_us=live_us, limit=limit)


class World:
    """Two nodes that tell each other of locks."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.shared = SharedStore(self.clock)
        self.rows = Rows()
        self.told: list[tuple[str, bytes]] = []
        self.locks = [LockSet(self.rows, self.clock) for _ in range(2)]
        self.nodes = [
            Lockouts(
                self.shared,
                MemoryLockoutStore(self.clock),
                locks=locks,
                clock=self.clock,
                signal=lambda name, data: self.told.append((name, data)),
            )
            for locks in self.locks
        ]

    async def fail(self, node: int, times: int = FAILURES_MAX, address: str = HERE) -> None:
        for _ in range(times):
            await self.nodes[node].failed(ANN, address)

    async def is_locked(self, node: int, address: str = HERE) -> bool:
        try:
            await self.nodes[node].check(ANN, address)
        except AccountLocked:
            return True
        return False

    def tell(self) -> None:
        """The signals so far arrive everywhere."""
        for name, data in self.told:
            assert name == LOCKED
            for locks in self.locks:
                locks.heard(data)


@pytest.fixture
def world() -> World:
    return World()


async def test_failures_on_any_node_lock_on_every_node_for_that_address(world: World) -> None:
    await world.fail(0, 3)
    assert not await world.is_locked(0)
    await world.fail(1, 2)
    assert [await world.is_locked(n) for n in (0, 1)] == [True, True]
    assert not await world.is_locked(0, THERE), "a stranger elsewhere does not lock her out"
    with pytest.raises(AccountLocked) as locked:
        await world.nodes[0].check(ANN, HERE)
    assert (locked.value.word, locked.value.status, locked.value.retry_after_s) == ("ACCOUNT_LOCKED", 401, LOCK_US / 1e6)
    world.clock.us += LOCK_US
    assert not await world.is_locked(0)


async def test_the_right_password_starts_the_count_anew(world: World) -> None:
    await world.fail(0, 4)
    await world.nodes[1].succeeded(ANN, HERE)
    await world.fail(0, 4)
    assert not await world.is_locked(0)


async def test_a_lock_holds_on_every_node_while_the_tallies_are_away_and_after_they_came_back_empty(world: World) -> None:
    await world.fail(0)
    world.shared.is_away = True
    assert [await world.is_locked(n) for n in (0, 1)] == [True, False], "the other one was not told yet"
    world.tell()
    assert [await world.is_locked(n) for n in (0, 1)] == [True, True]
    for node in world.nodes:
        await node.succeeded(ANN, HERE)
    assert [await world.is_locked(n) for n in (0, 1)] == [True, True], "a right password opens no lock"
    world.shared.store = MemoryLockoutStore(world.clock)
    world.shared.is_away = False
    assert [await world.is_locked(n) for n in (0, 1)] == [True, True]


async def test_in_an_outage_a_node_counts_for_itself_and_brings_it_back(world: World) -> None:
    await world.fail(0, 3)
    world.shared.is_away = True
    await world.fail(0, 4)
    assert not await world.is_locked(0)
    await world.fail(0, 1)
    assert [await world.is_locked(n) for n in (0, 1)] == [True, False], "the other one was not told yet"
    assert world.nodes[0].apart == 1
    with pytest.raises(BackendDown):
        await world.nodes[0].bring_back()
    assert world.nodes[0].apart == 1
    world.shared.is_away = False
    assert await world.nodes[0].bring_back() == 1
    assert world.nodes[0].apart == 0
    assert await world.is_locked(1)
    assert await world.nodes[0].bring_back() == 0


async def test_what_is_counted_apart_while_it_is_brought_back_is_brought_back_too(world: World) -> None:
    world.shared.is_away = True
    await world.fail(0, 1)
    world.shared.is_away = False
    node, merge = world.nodes[0], world.shared.merge

    async def merge_late(key: str, tally: Tally) -> Tally:
        world.shared.is_away = True
        await world.fail(0, 1)
        world.shared.is_away = False
        return await merge(key, tally)

    world.shared.merge = merge_late  # type: ignore[method-assign]  # an outage in the middle of the return
    await node.bring_back()
    assert node.apart == 1
    world.shared.merge = merge  # type: ignore[method-assign]
    await node.bring_back()
    await world.fail(1, 3)
    assert await world.is_locked(1)


async def test_counts_of_two_nodes_come_back_as_the_higher_one(world: World) -> None:
    world.shared.is_away = True
    await world.fail(0, 4)
    await world.fail(1, 3)
    world.shared.is_away = False
    for node in world.nodes:
        await node.bring_back()
    assert not await world.is_locked(0)
    await world.fail(1, 1)
    assert await world.is_locked(0)


async def test_what_is_counted_apart_is_bounded_and_the_rest_is_not_hidden(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secureconnect.features.lockout.service.APART_MAX", 10)
    world.shared.is_away = True
    for n in range(15):
        await world.fail(0, 1, address=f"{n}")
    assert (world.nodes[0].apart, world.nodes[0].dropped_total) == (10, 5)


async def test_without_a_signal_a_node_reads_the_lock_from_disk(world: World) -> None:
    world.shared.is_away = True
    await world.fail(0)
    assert not await world.is_locked(1)
    await world.locks[1].follow()
    assert await world.is_locked(1)


async def test_a_node_that_starts_anew_while_nothing_else_remembers_knows_the_locks(world: World) -> None:
    await world.fail(0)
    world.shared.store = MemoryLockoutStore(world.clock)
    world.locks[1] = LockSet(world.rows, world.clock)
    world.nodes[1] = Lockouts(
        world.shared, MemoryLockoutStore(world.clock), locks=world.locks[1], clock=world.clock, signal=lambda name, data: None
    )
    assert not await world.is_locked(1), "until it has read them"
    await world.locks[1].follow()
    assert await world.is_locked(1)
    world.clock.us += LOCK_US
    assert not await world.is_locked(1)


async def test_a_lock_that_could_not_be_written_holds_and_is_written_later(world: World) -> None:
    world.rows.is_away = world.shared.is_away = True
    await world.fail(0)
    assert await world.is_locked(0)
    assert len(world.locks[0].unwritten) == 1
    with pytest.raises(BackendDown):
        await world.locks[0].follow()
    assert len(world.locks[0].unwritten) == 1
    world.rows.is_away = False
    await world.locks[0].follow()
    assert len(world.locks[0].unwritten) == 0
    await world.locks[1].follow()
    assert await world.is_locked(1)


async def test_the_others_are_told_of_a_lock_once_and_before_it_is_on_disk(world: World) -> None:
    world.rows.is_away = True
    await world.fail(0, FAILURES_MAX + 3)
    await world.fail(1, 1)
    assert len(world.told) == 2, "each node tells what it found itself"
    assert [one.locked_total for one in world.nodes] == [1, 1]


async def test_a_lock_that_comes_of_bringing_back_is_told_and_written(world: World) -> None:
    world.shared.is_away = True
    await world.fail(0, 4)
    world.shared.is_away = False
    await world.shared.store.merge("ann@example.org 10.0.0.1", Tally(FAILURES_MAX, world.clock.us, world.clock.us + LOCK_US))
    await world.nodes[0].bring_back()
    assert len(world.told) == 1
    await world.locks[1].follow()
    assert len(world.locks[1]) == 1
    assert not world.nodes[0].is_local


def test_a_set_of_locks_keeps_the_latest_end_and_forgets_what_is_over() -> None:
    clock = SetClock()
    locks = LockSet(MemoryLocks(), clock)
    assert locks.add("a", clock.us + 10)
    assert not locks.add("a", clock.us + 5)
    assert locks.until_us("a") == clock.us + 10
    assert locks.add("a", clock.us + 20)
    locks.heard(b"not json")
    clock.us += 20
    locks.add("b", clock.us + 1)
    assert (len(locks), locks.until_us("a"), locks.dropped_total) == (1, 0, 0)


def test_a_full_set_of_locks_forgets_the_oldest_and_says_so() -> None:
    clock = SetClock()
    locks = LockSet(MemoryLocks(), clock, locks_max=3)
    for n in range(5):
        locks.add(f"{n}", clock.us + LOCK_US + n)
    assert (len(locks), locks.dropped_total) == (3, 2)
    assert (locks.until_us("1"), locks.until_us("2")) == (0, clock.us + LOCK_US + 2)


async def test_rows_that_become_visible_late_are_read_too() -> None:
    clock, rows = SetClock(), LateRows()
    locks = LockSet(rows, clock)
    rows.shown = [Lock(2, "two", clock.us + LOCK_US)]
    await locks.follow()
    clock.us += 1_000_000
    rows.shown.insert(0, Lock(1, "one", clock.us + LOCK_US))
    await locks.follow()
    assert locks.until_us("one") > 0


class LateRows(MemoryLocks):
    """In which rows appear in any order of their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Lock] = []

    async def since(self, after: int, *, live_us: int, limit: int) -> Sequence[Lock]:
        return [lock for lock in self.shown if lock.number > after][:limit]
