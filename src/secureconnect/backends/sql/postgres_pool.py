"""The connections that wait for their next call. How many may be in use is the bulkhead's matter (resilience).

Never asyncpg's pool: its release is shielded and asks the server, so a frozen one holds its caller for ever, and its reset costs
as much as a call. Nothing is reset here because no plan leaves anything behind: a connection comes back clean or is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
import trio

from secureconnect.backends.sql.postgres_connection import Connection
from secureconnect.backends.sql.postgres_errors import NeverBegan
from secureconnect.errors import BackendDown, SecureConnectError

T = TypeVar("T")

KEEPER_PAUSE_S: Final = 0.5
"""How long a pool may be short of connections before the keeper looks; also the pause between its failed dials."""
KEEPER_DIAL_S: Final = 1.5
"""One dial of the keeper's; a caller's ends with its attempt."""

_log = structlog.get_logger("secureconnect.sql")


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Numbers of failure-policy.md §1."""

    ready_min: int = 5
    """Connections kept open though nobody uses them."""
    life_s: float = 3600.0
    """A connection's age at which it is not given out again: servers move, and sessions grow."""
    idle_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What is now, and counts since the start. `torn_total`: closed because a call on it had not ended by itself."""

    idle: int
    in_use: int
    dialled_total: int
    torn_total: int
    dials_failed_total: int


class Pool:
    """Connections made by `dial`, which raises the house's errors."""

    def __init__(self, dial: Callable[[], Awaitable[Connection]], limits: PoolLimits) -> None:
        self.limits = limits
        self._dial = dial
        self._idle: list[Connection] = []
        self._used: dict[Connection, None] = {}
        self._is_closed = False
        self._dialled_total = 0
        self._torn_total = 0
        self._dials_failed_total = 0

    async def run(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        """`call` on a connection of its own. One that proves dead before anything was sent is replaced by a new one, once.

        Raises: what the dial and `call` raise. Cancellation: the connection is closed, or its dial given up.
        """
        if self._is_closed:
            raise _closed()
        kept = self._take()
        if kept is not None:
            try:
                async with self._lent(kept):
                    return await call(kept)
            except NeverBegan:
                pass
        async with self._lent(await self._dialled()) as fresh:
            return await call(fresh)

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close what is too old and dial what is missing, so that nobody waits for it. Until cancelled."""
        is_well = True
        task_status.started()
        while True:
            self._prune()
            try:
                while len(self._idle) + len(self._used) < self.limits.ready_min:
                    with trio.fail_after(KEEPER_DIAL_S):
                        self._idle.append(await self._dialled())
                is_well = True
            except (SecureConnectError, trio.TooSlowError) as error:
                if is_well:
                    _log.warning("sql_dial_failed", error=str(error), cause=type(error.__cause__).__name__)
                is_well = False
            await trio.sleep(KEEPER_PAUSE_S)

    def close(self) -> None:
        """Close every connection, those in use too, and lend no more. Nothing in it waits for the server."""
        self._is_closed = True
        for connection in (*self._idle, *self._used):
            connection.abort()
        self._idle.clear()

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            idle=len(self._idle),
            in_use=len(self._used),
            dialled_total=self._dialled_total,
            torn_total=self._torn_total,
            dials_failed_total=self._dials_failed_total,
        )

    async def _dialled(self) -> Connection:
        try:
            connection = await self._dial()
        except SecureConnectError:
            self._dials_failed_total += 1
            raise
        self._dialled_total += 1
        if self._is_closed:  # it came in the moment of closing, when nobody could close it
            connection.abort()
            raise _closed()
        return connection

    def _take(self) -> Connection | None:
        """The one used last: the server has it in its caches, and those at the bottom grow old and go."""
        while self._idle:
            connection = self._idle.pop()
            if self._is_good(connection):
                return connection
            connection.abort()
        return None

    @asynccontextmanager
    async def _lent(self, connection: Connection) -> AsyncIterator[Connection]:
        self._used[connection] = None
        try:
            yield connection
        finally:
            del self._used[connection]
            if connection.is_clean and not self._is_closed:
                connection.used_s = trio.current_time()
                self._idle.append(connection)
            else:
                self._torn_total += 1
                connection.abort()

    def _prune(self) -> None:
        good = []
        for connection in self._idle:
            if self._is_good(connection):
                good.append(connection)
            else:
                connection.abort()
        self._idle = good

    def _is_good(self, connection: Connection) -> bool:
        now_s, limits = trio.current_time(), self.limits
        is_young = now_s < min(connection.born_s + limits.life_s, connection.used_s + limits.idle_s)
        return is_young and connection.is_clean


def _closed() -> BackendDown:
    return BackendDown("sql", "The database is being closed")
