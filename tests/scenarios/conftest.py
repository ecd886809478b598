"""Real engines under whole nodes: one Redis and one PostgreSQL for each test that breaks them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.backends.sql.postgres_kit import need_postgres
from tests.services.redis import RedisServer, running_redis

from secureconnect.testing.postgres_server import PostgresServer


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    need_postgres()
    server = PostgresServer(durable=False)
    try:
        server.create()
        yield server
    finally:
        server.remove()
