"""The embedded backend: SQLite in the data folder, everything else in memory. Nothing to configure, one node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from secureconnect.backends.bundle import Bundle, Watched
from secureconnect.backends.sql import probes
from secureconnect.backends.sql.announcements import SqlAnnouncementStore
from secureconnect.backends.sql.auth import SqlRevocations, SqlSessions, SqlUsers
from secureconnect.backends.sql.conversations import SqlConversations
from secureconnect.backends.sql.directory import SqlDirectory
from secureconnect.backends.sql.locks import SqlLocks
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.sqlite import SqliteEngine, SqliteLimits, open_sqlite
from secureconnect.ids import NodeId
from secureconnect.ports import Clock


@asynccontextmanager
async def open_embedded(path: Path, *, node: NodeId, clock: Clock, deadline_s: float = 5.0) -> AsyncIterator[Bundle]:
    """Open or make the database file and serve its stores for the length of the block; leaving it finishes what was begun.

    `deadline_s` bounds every call of every store, its wait in the queue included.
    Raises: ConfigError, BackendDown, StorageFull, each naming the file and the cure.
    """
    async with open_sqlite(path, limits=SqliteLimits(deadline_s=deadline_s)) as engine:
        yield Bundle(
            users=SqlUsers(engine),
            sessions=SqlSessions(engine),
            revocations=SqlRevocations(engine),
            locks=SqlLocks(engine),
            conversations=SqlConversations(engine),
            directory=SqlDirectory(engine),
            log=SqlLogStore(engine),
            announcements=SqlAnnouncementStore(engine),
            digests=None,
            watched=Watched("sql", probes.prober(engine, node, clock)),
            queues=lambda: _queues(engine),
        )


def _queues(engine: SqliteEngine) -> Mapping[str, Mapping[str, int]]:
    now = engine.statistics()
    return {
        "sql_writes": {"depth": now.writes_waiting, "bound": engine.limits.writes_waiting_max, "full_total": now.full_total},
        "sql_reads": {"depth": now.reads_waiting, "bound": engine.limits.reads_waiting_max, "full_total": now.full_total},
    }
