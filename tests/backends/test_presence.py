"""Presence on what nodes really share: leases in memory and in Redis, which is killed and comes back empty; and the tasks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from tests.backends.conftest import connected
from tests.features.presence.kit import ANN, BOB, House, Time, Unsteady
from tests.services.redis import RedisServer
from trio.testing import MockClock

from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.backends.presence import run_presence
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.leases import RedisLeaseStore
from secureconnect.errors import SecureConnectError, Unavailable
from secureconnect.features.presence.leasing import LINGER_S
from secureconnect.features.presence.service import DEBOUNCE_S, EXPIRE_S, REBUILD_S
from secureconnect.features.presence.store import Change, LeaseStore, Sighting
from secureconnect.ids import UserId

SOON_S = DEBOUNCE_S + 1
GONE_S = LINGER_S + SOON_S
WHOLE_S = 2 * REBUILD_S + 1
FAR_S = 20.0


@pytest.fixture
def house(shared: Client | None) -> House:
    time = Time()
    return House(MemoryLeaseStore(time) if shared is None else RedisLeaseStore(shared), time)


async def there(store: LeaseStore, users: Sequence[UserId]) -> list[UserId]:
    return [one.user for one in await store.look(users) if one.is_there]


async def test_on_two_nodes_she_outlives_one_and_goes_with_the_other_once(house: House) -> None:
    n1, n2 = house.start("n1"), house.start("n2")
    for node in (n1, n2):
        node.arrived(ANN)
    n1.arrived(BOB)
    await house.wait(SOON_S)
    assert sorted(house.heard()) == [(ANN, "online"), (BOB, "online")]
    del house.nodes["n1"]
    await house.store.hold("n1", [ANN, BOB], lease_s=0)  # it died, and its leases are over
    house.start("n3")
    await house.wait(EXPIRE_S + SOON_S)
    assert house.heard() == [(BOB, "offline")]
    assert await there(house.store, [ANN, BOB]) == [ANN]
    n2.left(ANN)
    await house.wait(GONE_S)
    assert house.heard() == [(ANN, "offline")]
    (gone,), is_partial = await n2.read(BOB, [ANN])
    assert (gone.is_there, gone.went_us is not None, is_partial) == (False, True, False)


@pytest.mark.service
async def test_a_redis_that_dies_makes_answers_partial_and_comes_back_to_what_is_there_then(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    clients = [await connected(redis_server, nursery) for _ in range(2)]
    stores = [RedisLeaseStore(client) for client in clients]
    house = House(stores[0], Time())
    n1, n2 = house.start("n1", stores[0]), house.start("n2", stores[1])
    n1.arrived(ANN)
    n2.arrived(BOB)
    await house.wait(SOON_S)
    assert not n1.is_partial
    redis_server.kill()
    await house.wait(EXPIRE_S + 0.5)
    assert (n1.is_partial, n2.is_partial) == (True, True)
    assert await n1.read(ANN, [ANN, BOB]) == ([Sighting(ANN, True), Sighting(BOB, False)], True)
    n1.left(ANN)
    await house.wait(GONE_S)
    house.told.clear()
    await trio.to_thread.run_sync(redis_server.start)
    for client in clients:
        await came_back(client)
    assert await there(stores[0], [ANN, BOB]) == []
    await house.wait(0.5)
    assert (await n1.read(ANN, [BOB]))[1], "Bob's node may not have told yet"
    await house.wait(WHOLE_S)
    assert await n1.read(ANN, [ANN, BOB]) == ([Sighting(ANN, False), Sighting(BOB, True)], False)
    await house.wait(SOON_S)
    assert sorted(house.heard()) == [(ANN, "offline"), (BOB, "online")]


async def came_back(client: Client) -> None:
    """What a node's prober does."""
    with trio.fail_after(FAR_S):
        while True:
            try:
                await client.stack.breaker.probe(client.probe)
                return
            except SecureConnectError:
                await trio.sleep(0.01)


@pytest.mark.service
async def test_a_redis_that_was_restarted_between_two_calls_is_noticed(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    client = await connected(redis_server, nursery)
    store = RedisLeaseStore(client)
    house = House(store, Time(), generation=lambda: client.link.generation)
    node = house.start("n1")
    node.arrived(ANN)
    await house.wait(SOON_S)
    seen = client.link.generation
    await trio.to_thread.run_sync(redis_server.restart)
    with trio.fail_after(FAR_S):
        while client.link.generation == seen:  # noqa: ASYNC110  # the link tells nobody
            await trio.sleep(0.01)
    await house.wait(0.5)
    assert node.is_partial
    await house.wait(WHOLE_S)
    assert await there(store, [ANN]) == [ANN]
    assert not node.is_partial


# -- the tasks


async def test_the_tasks_lease_tell_and_leave_the_leases_to_run_out_soon(autojump_clock: MockClock) -> None:
    house = House(MemoryLeaseStore(time := LoopTime()), time)
    node = house.start("n1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_presence(node, random=lambda: 0.5))
        node.arrived(ANN)
        await trio.sleep(GONE_S)
        assert house.heard() == [(ANN, "online")]
        house.members.is_down = True
        node.arrived(BOB)
        await trio.sleep(GONE_S)
        assert await there(house.store, [BOB]) == [BOB], "leases do not wait for the database"
        house.members.is_down = False
        await trio.sleep(1)
        assert house.heard() == [(BOB, "online")]
        nursery.cancel_scope.cancel()
    await trio.sleep(LINGER_S)
    assert sorted((await house.store.expire()).went) == [ANN, BOB]


async def test_a_store_that_does_not_answer_is_away_and_ends_nobody(autojump_clock: MockClock) -> None:
    class Stuck(Unsteady):
        async def expire(self) -> Change:
            await trio.sleep_forever()
            raise AssertionError("woken")

    house = House(Stuck(MemoryLeaseStore(time := LoopTime())), time)
    node = house.start("n1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_presence(node, random=lambda: 0.5))
        await trio.sleep(10)
        assert node.is_partial
        nursery.cancel_scope.cancel()


async def test_a_store_that_is_away_at_the_end_does_not_hold_it_up(autojump_clock: MockClock) -> None:
    store = Unsteady(MemoryLeaseStore(time := LoopTime()))
    house = House(store, time)
    node = house.start("n1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_presence(node, random=lambda: 0.5))
        node.arrived(ANN)
        await trio.sleep(SOON_S)
        store.is_away = True
        with pytest.raises(Unavailable):
            await node.farewell()
        nursery.cancel_scope.cancel()


class LoopTime(Time):
    """The loop's, which jumps."""

    def __call__(self) -> float:
        return trio.current_time()

    def now_us(self) -> int:
        return round(trio.current_time() * 1e6)
