"""Lockout and rate limits of two nodes whose Redis is killed and comes back empty, and of a node that starts anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import trio
from tests.services.redis import RedisServer

from secureconnect.testing.postgres_server import PostgresServer
from secureconnect.testing.process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.service]

PASSWORD = "a long password"
FAR_S = 20.0
"""For what takes a moment: a hang fails here, with a name, and not at the end of the run."""


@pytest.fixture
def nodes(tmp_path: Path, redis_server: RedisServer, postgres_server: PostgresServer) -> Iterator[tuple[ServerProcess, ...]]:
    settings = {
        "SQL_URL": postgres_server.url,
        "REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/0",
        "SECRET": "shared by all the nodes of a test",
        "RATE_LIMITS": "on",
        "RATE_LOGIN_PER_MIN": "1000000",
        "RATE_ACCOUNT_PER_MIN": "60",
    }
    nodes = tuple(ServerProcess(tmp_path / name / "data", settings=settings) for name in ("n1", "n2"))
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def register(node: ServerProcess) -> str:
    """The access token of Ann."""
    fields = {"email": "ann@example.org", "username": "ann", "password": PASSWORD, "display_name": "Ann"}
    return str(httpx.post(f"{node.url}/v1/auth/register", json=fields, timeout=FAR_S).json()["data"]["access_token"])


def login(node: ServerProcess, password: str) -> httpx.Response:
    fields = {"email": "ann@example.org", "password": password}
    return httpx.post(f"{node.url}/v1/auth/login", json=fields, timeout=FAR_S)


def is_locked(node: ServerProcess) -> bool:
    answer = login(node, PASSWORD)
    return answer.status_code == 401 and answer.json()["error"]["code"] == "ACCOUNT_LOCKED"


def state(node: ServerProcess, dependency: str) -> str:
    return str(httpx.get(f"{node.url}/healthz", timeout=FAR_S).json()["dependencies"][dependency]["state"])


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(FAR_S):
        while not is_so():  # noqa: ASYNC110  # another process
            await trio.sleep(0.05)


async def until_redis_is(wanted: str, nodes: tuple[ServerProcess, ...]) -> None:
    await until(lambda: all(state(node, "redis") == wanted for node in nodes))


async def test_a_lock_holds_on_every_node_whatever_becomes_of_redis_and_of_a_node(
    nodes: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    register(nodes[0])
    for n in range(5):
        assert login(nodes[n % 2], "a wrong password").json()["error"]["code"] == "INVALID_CREDENTIALS"
    answer = login(nodes[0], PASSWORD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ACCOUNT_LOCKED")
    assert 800 < int(answer.headers["retry-after"]) <= 900
    await until(lambda: is_locked(nodes[1]))
    redis_server.kill()
    await until_redis_is("down", nodes)
    assert [is_locked(node) for node in nodes] == [True, True]
    nodes[1].kill()
    nodes[1].start()
    assert [is_locked(node) for node in nodes] == [True, True], "the new one read it from disk"
    redis_server.start()
    await until_redis_is("up", nodes)
    assert [is_locked(node) for node in nodes] == [True, True]


async def test_limits_are_shared_go_local_and_are_shared_again(
    nodes: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    token = {"Authorization": f"Bearer {register(nodes[0])}"}

    def ask(node: ServerProcess) -> tuple[int, int]:
        """The limit, and what is left of it."""
        answer = httpx.get(f"{node.url}/v1/auth/profile", headers=token, timeout=FAR_S)
        assert answer.status_code in (200, 429)
        return int(answer.headers["x-ratelimit-limit"]), int(answer.headers["x-ratelimit-remaining"])

    for _ in range(30):
        ask(nodes[0])
    limit, left = ask(nodes[1])
    assert limit == 60
    assert left < 50, "what the other one counted counts here"
    redis_server.kill()
    await until(lambda: all(ask(node)[0] == 30 for node in nodes))  # its half, once it has heard of the other
    redis_server.start()
    await until_redis_is("up", nodes)
    await until(lambda: [ask(node)[0] for node in nodes] == [60, 60])  # a call that is late once is counted here, and no fault
