"""Real servers, started once for all tests that ask for them, and found clean by each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from tests.backends.sql.postgres_kit import need_postgres
from tests.services.redis import RedisServer, running_redis

from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.link import Link
from secureconnect.resilience import REDIS, Stack
from secureconnect.testing.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    redis_process.clean()
    return redis_process


async def connected(server: RedisServer, nursery: trio.Nursery) -> Client:
    """As a node is."""
    link = Link(server.address, "command", random=lambda: 0.5)
    await nursery.start(link.run)
    return Client(link, Stack(REDIS, random=lambda: 0.5))


@pytest.fixture
async def redis_client(redis_server: RedisServer, nursery: trio.Nursery) -> Client:
    return await connected(redis_server, nursery)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.service)])
async def shared(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Client | None:
    """What nodes share; None: nothing, use the memory stores."""
    return None if request.param == "memory" else await connected(request.getfixturevalue("redis_server"), nursery)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for tests that do not break it."""
    need_postgres()
    server = PostgresServer(durable=False)
    try:
        server.create()
        yield server
    finally:
        server.remove()
