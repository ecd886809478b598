"""The distributed backend: stores on PostgreSQL or CockroachDB, shared by all nodes.

Importing this page needs the extra `postgres` and patches asyncio (bridge.py): only where a server is configured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from secureconnect.backends.bundle import Bundle, Watched
from secureconnect.backends.policies import sql_policy
from secureconnect.backends.sql import probes
from secureconnect.backends.sql.announcements import SqlAnnouncementStore
from secureconnect.backends.sql.auth import SqlRevocations, SqlSessions, SqlUsers
from secureconnect.backends.sql.conversations import SqlConversations
from secureconnect.backends.sql.digests import SqlDigestTable
from secureconnect.backends.sql.directory import SqlDirectory
from secureconnect.backends.sql.locks import SqlLocks
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.postgres import Postgres, PostgresLimits, open_postgres
from secureconnect.backends.sql.postgres_pool import PoolLimits
from secureconnect.config import Settings
from secureconnect.ids import NodeId
from secureconnect.ports import Clock, Rng


@asynccontextmanager
async def open_distributed(
    url: str, *, node: NodeId, clock: Clock, rng: Rng, limits: PostgresLimits | None = None, waits: bool = False
) -> AsyncIterator[tuple[Bundle, Postgres]]:
    """The stores for the length of the block, and the database under them. Leaving it waits for no server.

    Raises: ConfigError (an operator must mend it), BackendDown (the server is away: try again later).
    `waits`: enter without the server, and refuse every call (BackendDown) until it is there and its tables are up to date; a
    ConfigError ends the block then.
    """
    async with open_postgres(url, random=rng.random, limits=limits or PostgresLimits(), waits=waits) as database:
        yield _bundle(database, node, clock), database


def limits_of(settings: Settings) -> PostgresLimits:
    """The numbers of the settings."""
    return PostgresLimits(
        policy=sql_policy(settings),
        pool=PoolLimits(
            ready_min=settings.sql_pool_idle_min,
            life_s=settings.sql_connection_life_s,
            idle_s=settings.sql_connection_idle_s,
        ),
    )


def _bundle(database: Postgres, node: NodeId, clock: Clock) -> Bundle:
    auth, chat, background = database.engine("auth"), database.engine("chat"), database.engine("background")
    return Bundle(
        users=SqlUsers(auth),
        sessions=SqlSessions(auth),
        revocations=SqlRevocations(auth),
        locks=SqlLocks(auth),
        conversations=SqlConversations(chat),
        directory=SqlDirectory(chat),
        log=SqlLogStore(chat),
        announcements=SqlAnnouncementStore(chat),  # not the background's: who was added waits for these in her own request
        digests=SqlDigestTable(background, clock),
        watched=Watched("sql", probes.prober(database.prober(), node, clock), database.stack, database.pool_shown),
        queues=database.queues,
    )
