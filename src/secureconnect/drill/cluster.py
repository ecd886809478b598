"""What an experiment stands on: one PostgreSQL, one Redis behind a proxy, and nodes, each a process with a folder of its own.

The database is reached directly: a proxy in the process that makes the load would stand in every request's way, and each of its
faults can be made at the server itself.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from secureconnect.drill.proxy import FaultProxy
from secureconnect.errors import BackendDown
from secureconnect.testing import postgres_server
from secureconnect.testing.postgres_server import PostgresServer
from secureconnect.testing.process import ServerProcess
from secureconnect.testing.redis_server import RedisServer, redis_program

SQL_CONNECTIONS_MAX: Final = 100
"""Of the server: three nodes with pools of 25, and room for who breaks it."""
SQL_SETTINGS: Final = {"max_connections": str(SQL_CONNECTIONS_MAX), "superuser_reserved_connections": "0"}


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One `secureconnect serve`."""

    name: str
    process: ServerProcess

    @property
    def url(self) -> str:
        return self.process.url

    def freeze(self) -> None:
        """It keeps its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()

    async def start(self) -> None:
        """On its port and its folder. Raises: RuntimeError with the end of its log."""
        await trio.to_thread.run_sync(self.process.start)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that an experiment may break. `line`: between the nodes and Redis."""

    nodes: tuple[ClusterNode, ...]
    redis: RedisServer
    line: FaultProxy
    sql: PostgresServer


@asynccontextmanager
async def open_cluster(folder: Path, *, nodes: int) -> AsyncIterator[Cluster]:
    """Started for the length of the block. `folder` gets the nodes' data and logs.

    Raises: BackendDown when a server program is missing, RuntimeError when one does not start.
    """
    program = redis_program()
    if program is None or postgres_server.programs() is None:
        raise BackendDown("servers", "A server program is missing; Debian: apt-get install redis-server postgresql")
    redis, sql = RedisServer(program, folder), PostgresServer(settings=SQL_SETTINGS)
    started: list[ClusterNode] = []
    try:
        await trio.to_thread.run_sync(redis.start)
        await trio.to_thread.run_sync(sql.create)
        async with FaultProxy("127.0.0.1", redis.port) as line:
            settings = {"SQL_URL": sql.url, "REDIS_URL": f"redis://127.0.0.1:{line.port}", "SECRET": secrets.token_urlsafe(32)}
            for number in range(1, nodes + 1):
                process = ServerProcess(folder / f"node-{number}" / "data", settings=settings)
                started.append(ClusterNode(f"node-{number}", process))
                await started[-1].start()
            yield Cluster(tuple(started), redis, line, sql)
    finally:
        for node in started:
            node.kill()
        redis.kill()
        with suppress(OSError):
            sql.remove()
