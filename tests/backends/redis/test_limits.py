"""Rate limits and lockout of two nodes on one real Redis: there, killed, and back with nothing."""

from __future__ import annotations

import pytest
import trio
from tests.backends.conftest import connected
from tests.services.redis import RedisServer

from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.locks import MemoryLocks
from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.lockout import KEY, RedisLockoutStore
from secureconnect.backends.redis.rates import RedisRateStore
from secureconnect.backends.system import SystemClock
from secureconnect.errors import SecureConnectError
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.model import FAILURES_MAX, AccountLocked
from secureconnect.features.lockout.service import Lockouts
from secureconnect.features.rates.model import Rate
from secureconnect.features.rates.service import Rates

pytestmark = pytest.mark.service

ANN, HERE = "ann@example.org", "10.0.0.1"
FAR_S = 10.0
HOUR = Rate(6, 3_600)
"""So slow that nothing comes back during a test."""


class Node:
    """What one node has of both. Locks of several nodes lie in `rows`; what it tells them is in `told`."""

    def __init__(self, client: Client, rows: MemoryLocks) -> None:
        clock = SystemClock()
        self.client, self.rows = client, rows
        self.told: list[bytes] = []
        self.rates = Rates({"login": HOUR}, MemoryRateStore(clock), shared=RedisRateStore(client), nodes=lambda: 2)
        self.locks = LockSet(rows, clock)
        self.lockouts = Lockouts(
            RedisLockoutStore(client),
            MemoryLockoutStore(clock),
            locks=self.locks,
            clock=clock,
            signal=lambda name, data: self.told.append(data),
        )

    async def is_allowed(self) -> bool:
        return (await self.rates.take("login", "ann")).is_allowed

    async def is_locked(self) -> bool:
        try:
            await self.lockouts.check(ANN, HERE)
        except AccountLocked:
            return True
        return False

    async def fail(self, times: int) -> None:
        for _ in range(times):
            await self.lockouts.failed(ANN, HERE)

    async def reach(self) -> None:
        """Until Redis is back, as the prober of a node finds out."""
        with trio.fail_after(FAR_S):
            while True:
                try:
                    await self.client.stack.breaker.probe(self.client.probe)
                    await self.client.command("PING", changes=False, is_repeatable=False)
                    return
                except SecureConnectError:
                    await trio.sleep(0.02)


@pytest.fixture
async def nodes(redis_server: RedisServer, nursery: trio.Nursery) -> list[Node]:
    rows = MemoryLocks()
    return [Node(await connected(redis_server, nursery), rows) for _ in range(2)]


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


async def test_nodes_share_their_limits_go_local_while_redis_is_away_and_share_again(
    nodes: list[Node], redis_server: RedisServer
) -> None:
    assert [await nodes[n % 2].is_allowed() for n in range(8)] == [True] * 6 + [False] * 2
    assert [node.rates.is_local for node in nodes] == [False, False]
    redis_server.kill()
    for node in nodes:
        assert [await node.is_allowed() for _ in range(4)] == [True] * 3 + [False], "each its half"
        assert node.rates.is_local
    redis_server.start()
    for node in nodes:
        await node.reach()
    assert [await nodes[n % 2].is_allowed() for n in range(8)] == [True] * 6 + [False] * 2, "what was counted apart is dropped"
    assert [node.rates.is_local for node in nodes] == [False, False]


async def test_a_lock_outlives_redis_on_the_node_that_was_told_and_on_one_that_starts_later(
    nodes: list[Node], redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    first, second = nodes
    await first.fail(3)
    await second.fail(2)
    assert [await node.is_locked() for node in nodes] == [True, True]
    (told,) = second.told
    first.locks.heard(told)
    redis_server.kill()
    assert [await node.is_locked() for node in nodes] == [True, True]
    redis_server.start()
    for node in nodes:
        await node.reach()
    assert redis_server.ask("KEYS", f"{KEY}*") == [], "it remembers nothing"
    assert [await node.is_locked() for node in nodes] == [True, True]
    third = Node(await connected(redis_server, nursery), first.rows)
    await third.locks.follow()
    assert await third.is_locked()


async def test_what_a_node_counts_while_redis_is_away_counts_everywhere_when_it_is_back(
    nodes: list[Node], redis_server: RedisServer
) -> None:
    first, second = nodes
    await first.fail(3)
    redis_server.kill()
    await first.fail(FAILURES_MAX - 1)
    assert first.lockouts.is_local
    assert not await first.is_locked()
    redis_server.start()
    for node in nodes:
        await node.reach()
    assert await first.lockouts.bring_back() == 1
    assert not first.lockouts.is_local
    await second.fail(1)
    assert [await node.is_locked() for node in nodes] == [True, True]


async def test_a_lock_of_the_outage_reaches_the_other_node_over_the_table(nodes: list[Node], redis_server: RedisServer) -> None:
    first, second = nodes
    redis_server.kill()
    await first.fail(FAILURES_MAX)
    assert not await second.is_locked()
    await second.locks.follow()
    assert await second.is_locked()
    redis_server.start()
    await second.reach()
    assert await second.is_locked()
