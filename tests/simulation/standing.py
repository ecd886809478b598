"""What the nodes of a simulated world stand on: everybody's stores in memory, behind a fault and behind each node's guards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, cast

import trio

from secureconnect.backends.bundle import Shared, Watched
from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.backends.policies import redis_policy
from secureconnect.backends.sql import probes
from secureconnect.backends.sql.engine import Plan
from secureconnect.config import Settings
from secureconnect.hub import Bus
from secureconnect.ids import NodeId
from secureconnect.ports import Clock, Rng
from secureconnect.resilience import Stack
from secureconnect.server.health import PROBE_DEADLINE_S
from secureconnect.testing.faulty_stores import Condition, Wire, faulty

T = TypeVar("T")

LANES = {"users": "auth", "sessions": "auth", "revocations": "auth"}
"""Of the SQL stores; the others are chat's, as in backends/distributed."""


class Engine:
    """A database of which only the health probe asks."""

    async def write(self, make: Callable[[], Plan[T]]) -> None:
        await trio.lowlevel.checkpoint()
        for _ in make():
            """Each statement is done."""

    async def read(self, make: Callable[[], Plan[T]]) -> None:
        await self.write(make)


class _Guarded:
    """See `guarded`."""

    def __init__(self, target: object, stack: Stack, lane: str, writes: frozenset[str]) -> None:
        self._target, self._stack, self._lane, self._writes = target, stack, lane, writes

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._target, name)
        changes = name in self._writes

        async def call(*args: object, **named: object) -> object:
            return await self._stack(lambda: method(*args, **named), lane=self._lane, changes=changes, is_repeatable=not changes)

        return call


def guarded(target: T, stack: Stack, lane: str, *, writes: Iterable[str]) -> T:
    """`target` behind a node's guards, as a technology's choke point puts them."""
    return cast(T, _Guarded(target, stack, lane, frozenset(writes)))


def watched_sql(condition: Condition, wire: Wire, stack: Stack, *, node: NodeId, clock: Clock) -> Watched:
    """With the product's own probe, as the canary of the breaker."""
    engine = faulty(Engine(), condition, wire, writes=("write",), call_s_max=PROBE_DEADLINE_S)
    probe = probes.prober(cast(Any, engine), node, clock)
    return Watched("sql", lambda: stack.breaker.probe(probe), stack)


class Ping:
    """What the probe of Redis writes."""

    async def write(self) -> None:
        await trio.lowlevel.checkpoint()


class SharedMemory:
    """In place of one Redis: all nodes count together, until it is restarted empty."""

    def __init__(self, clock: Clock) -> None:
        self.rates, self.lockouts, self.leases = MemoryRateStore(clock), MemoryLockoutStore(clock), MemoryLeaseStore(clock)
        self.generation = 1
        self._clock = clock

    def restart_empty(self) -> None:
        """Everything is forgotten; nodes see by the generation that it was away."""
        fresh = SharedMemory(self._clock)
        for store, empty in ((self.rates, fresh.rates), (self.lockouts, fresh.lockouts), (self.leases, fresh.leases)):
            vars(store).update(vars(empty))  # in place: the nodes hold it
        self.generation += 1

    def at_node(self, bus: Bus, condition: Condition, wire: Wire, *, settings: Settings, rng: Rng) -> Shared:
        """As one node reaches it, behind its guards."""
        stack = Stack(redis_policy(settings), random=rng.random)

        def skin(store: T, *writes: str) -> T:
            return guarded(faulty(store, condition, wire, writes=writes), stack, "command", writes=writes)

        ping = faulty(Ping(), condition, wire, writes=("write",), call_s_max=PROBE_DEADLINE_S)
        return Shared(
            bus=bus,
            rates=skin(self.rates, "take"),
            lockouts=skin(self.lockouts, "fail", "merge", "clear"),
            leases=skin(self.leases, "hold", "release", "expire"),
            watched=(Watched("redis", lambda: stack.breaker.probe(ping.write), stack),),
            generation=lambda: self.generation,
        )
