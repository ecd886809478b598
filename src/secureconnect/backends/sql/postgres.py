"""PostgreSQL and CockroachDB: the same stores as SQLite, guarded by the layers of `resilience.SQL`, with deadlines that hold.

Every call goes through one `Stack`: its permits are the connections in use, its lanes keep logins alive while chat is busy, an
attempt that is not answered in time loses its connection, and who would stand in a full line is refused at once
(`DB_POOL_EXHAUSTED`). Inside, a connection of the pool runs the plan as one transaction (postgres_connection.py).

- A lost serialization (40001, 40P01) makes the plan again, up to eight times: plans are pure.
- What fails before COMMIT was sent is not stored. A COMMIT without an answer is `OutcomeUnknown`; so is a write whose attempt
  ended by its deadline, wherever that was.
- A write is not tried again, for it may not be the same twice; one by `write_together` is, as its items carry their own keys, and
  so is a read. A connection that a restarted server has closed is replaced before anything was sent, whatever the call.

CockroachDB: by its documented behaviour, untested. It has no advisory locks; two that start at once meet in a conflict instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeVar

import structlog
import trio

from secureconnect.backends.bridge import Bridge, open_bridge
from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.postgres_connection import Address, Connection, dial
from secureconnect.backends.sql.postgres_errors import DRIVER, at_start, meaning
from secureconnect.backends.sql.postgres_pool import Pool, PoolLimits, PoolStatistics
from secureconnect.backends.sql.postgres_schema import migrate
from secureconnect.backends.sql.postgres_together import WAITING_MAX, Together
from secureconnect.errors import BackendDown
from secureconnect.resilience import SQL, Policy, Stack, StackStatistics, full_jitter_s

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 (an item of a shared plan, beside T its result)

LaneName = Literal["auth", "chat", "background"]
MIGRATIONS_S: Final = 600.0
"""All steps at the start, the wait for another node that makes them included."""
WAIT_FIRST_S: Final = 0.2
WAIT_LONGEST_S: Final = 1.0
"""Bounds of the pauses between dials of a server that is away at the start."""

_log = structlog.get_logger("secureconnect.sql")


@dataclass(frozen=True, slots=True)
class PostgresLimits:
    """`policy.permits` connections are in use at most; the prober has one more."""

    policy: Policy = SQL
    pool: PoolLimits = field(default_factory=PoolLimits)


@dataclass(frozen=True, slots=True)
class PostgresStatistics:
    """The layers, the pool, and the calls whose caller left (`orphans`: those that have not ended yet)."""

    stack: StackStatistics
    pool: PoolStatistics
    left_total: int
    orphans: int


class Postgres:
    """A database server; made by `open_postgres`. Its engines are the lanes of the policy."""

    def __init__(self, bridge: Bridge, pool: Pool, stack: Stack) -> None:
        self.stack = stack
        self.pool = pool
        self.together = Together(self._write_repeatable, stack.policy.total_s)
        self._bridge = bridge

    def engine(self, lane: LaneName) -> PostgresEngine:
        """For the stores of that lane."""
        return PostgresEngine(self, lane)

    async def _write_repeatable(self, make: Callable[[], Plan[T]], *, lane: str) -> T:
        call = partial(self.pool.run, partial(_write, make))
        return await self.stack(call, lane=lane, changes=True, is_repeatable=True)

    def prober(self) -> PostgresProber:
        """For the health probe alone."""
        return PostgresProber(self.pool, self.stack)

    def statistics(self) -> PostgresStatistics:
        return PostgresStatistics(self.stack.statistics(), self.pool.statistics(), self._bridge.left_total, self._bridge.orphans)

    def pool_shown(self) -> Mapping[str, int]:
        """The connections, for health. The prober's own is not among `max`."""
        pool, lines = self.pool.statistics(), self.stack.bulkhead.lines
        waiting = sum(lines.waiting.values())
        return {"in_use": pool.in_use, "idle": pool.idle, "waiting": waiting, "max": self.stack.policy.permits}

    def queues(self) -> Mapping[str, Mapping[str, int]]:
        """The lines in front of the connections, for health."""
        lines, together = self.stack.bulkhead.lines, self.together
        return {
            "sql_appends": {"depth": together.waiting, "bound": WAITING_MAX, "full_total": together.full_total},
            **{
                f"sql_{lane}": {"depth": depth, "bound": lines.limits(lane).waiting_max, "full_total": lines.full_total}
                for lane, depth in lines.waiting.items()
            },
        }


class PostgresEngine:
    """An `Engine` whose calls stand in one lane. Raises also: BreakerOpen, Overloaded (`DB_POOL_EXHAUSTED`); nothing was done."""

    def __init__(self, database: Postgres, lane: str) -> None:
        self._database = database
        self._lane = lane

    async def write(self, make: Callable[[], Plan[T]]) -> T:
        call = partial(self._database.pool.run, partial(_write, make))
        return await self._database.stack(call, lane=self._lane, changes=True, is_repeatable=False)

    async def write_together(self, make: Callable[[Sequence[I]], Plan[Sequence[T]]], item: I) -> T:
        self._database.stack.breaker.check()  # before the line, as the stack does it
        result: T = await self._database.together.ask(self._lane, make, item)
        return result

    async def read(self, make: Callable[[], Plan[T]]) -> T:
        call = partial(self._database.pool.run, partial(_read, make))
        return await self._database.stack(call, lane=self._lane, changes=False, is_repeatable=True)


class PostgresProber:
    """An `Engine` for the probe: one at a time, past lanes and breaker, which it closes and opens (`Breaker.probe`).

    It has a connection beside the permits: that all are busy is not that the database is away.
    """

    def __init__(self, pool: Pool, stack: Stack) -> None:
        self._pool = pool
        self._stack = stack

    async def write(self, make: Callable[[], Plan[T]]) -> T:
        results: list[T] = []
        attempt = partial(self._stack.attempt, partial(self._pool.run, partial(_write, make)))

        async def probe() -> None:  # only a lost serialization is tried again: it says that the database is well
            results.append(await self._stack.retry(attempt, is_repeatable=False))

        await self._stack.breaker.probe(probe)
        return results[0]

    async def write_together(self, make: Callable[[Sequence[I]], Plan[Sequence[T]]], item: I) -> T:
        (result,) = await self.write(partial(make, [item]))
        return result

    async def read(self, make: Callable[[], Plan[T]]) -> T:
        raise NotImplementedError("a probe that only reads proves nothing")


async def _write(make: Callable[[], Plan[T]], connection: Connection) -> T:
    return await connection.write(make)


async def _read(make: Callable[[], Plan[T]], connection: Connection) -> T:
    return await connection.read(make)


@asynccontextmanager
async def open_postgres(
    url: str, *, random: Callable[[], float], limits: PostgresLimits = PostgresLimits(), waits: bool = False
) -> AsyncIterator[Postgres]:
    """Bring the schema of the database at `url` up to date and serve it for the length of the block.

    Leaving it closes every connection at once; nothing waits for the server. `random()` is uniform in [0, 1).
    Raises: ConfigError (what an operator must mend; newer than this program), BackendDown (it is away: try again later).
    `waits`: enter at once; the schema is brought up to date when the server is there, and every call is refused until then
    (BackendDown). A ConfigError then ends the block.
    """
    address = Address.of(url)
    async with open_bridge() as bridge:
        schema = _Schema(bridge, address, dial_s=limits.policy.attempt_s)
        if not waits:
            await schema.bring_up_to_date()
        pool = Pool(schema.dial, limits.pool)
        async with trio.open_nursery() as nursery:
            try:
                database = Postgres(bridge, pool, Stack(limits.policy, random=random))
                nursery.start_soon(schema.wait_for_server, random)
                nursery.start_soon(pool.keep)
                nursery.start_soon(database.together.serve)
                yield database
            finally:
                nursery.cancel_scope.cancel()
                pool.close()


class _Schema:
    """The tables of one database: nothing is dialled for a call before they are up to date."""

    def __init__(self, bridge: Bridge, address: Address, *, dial_s: float) -> None:
        self._bridge, self._address, self._dial_s = bridge, address, dial_s
        self._is_ready = False

    async def wait_for_server(self, random: Callable[[], float]) -> None:
        """Try until it has worked. Raises: ConfigError."""
        failures = 0
        while not self._is_ready:
            try:
                await self.bring_up_to_date()
            except BackendDown as error:
                failures += 1
                if failures == 1:
                    _log.warning("sql_away_at_start", place=self._address.place, error=str(error))
                await trio.sleep(full_jitter_s(failures, random(), first_s=WAIT_FIRST_S, longest_s=WAIT_LONGEST_S))

    async def bring_up_to_date(self) -> None:
        """Raises: ConfigError, BackendDown."""
        place = self._address.place
        try:
            with trio.fail_after(self._dial_s):
                connection = await dial(self._bridge, self._address)
        except (*DRIVER, trio.TooSlowError) as error:
            raise at_start(error, place=place) from error
        try:
            with trio.fail_after(MIGRATIONS_S):
                await migrate(connection, place=place)
        except (*DRIVER, trio.TooSlowError) as error:
            raise at_start(error, place=place) from error
        finally:
            connection.abort()
        self._is_ready = True

    async def dial(self) -> Connection:
        """A connection for calls. Raises: the house's errors; BackendDown before the tables are there."""
        if not self._is_ready:
            await trio.lowlevel.checkpoint()
            raise BackendDown("sql", "The database has not been reached yet")
        try:
            return await dial(self._bridge, self._address)
        except DRIVER as error:
            named = meaning(error, stage="dial", is_open=False)
            raise named from error
