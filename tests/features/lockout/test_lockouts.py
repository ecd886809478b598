"""Locking an account while the shared tallies are there, away, and back."""

from __future__ import annotations

import pytest

from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.errors import BackendDown
from secureconnect.features.lockout.model import FAILURES_MAX, LOCK_US, Tally
from secureconnect.features.lockout.service import AccountLocked, Lockouts

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


class World:
    """Two nodes that tell each other of locks."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.shared = SharedStore(self.clock)
        self.told: list[tuple[str, Tally]] = []
        self.nodes = [
            Lockouts(self.shared, MemoryLockoutStore(self.clock), clock=self.clock, on_lock=lambda k, t: self.told.append((k, t)))
            for _ in range(2)
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

    async def mirror(self) -> None:
        for key, tally in self.told:
            for node in self.nodes:
                await node.mirror(key, tally)


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
    await world.mirror()
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
