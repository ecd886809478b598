"""Real servers, started once for all tests that ask for them, and found clean by each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.services.redis import RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    redis_process.clean()
    return redis_process
