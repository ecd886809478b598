"""Two nodes on one Redis and one PostgreSQL: what one stores the other delivers, with Redis there, away, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from tests.services.redis import RedisServer

from secureconnect import SecureConnect, Settings
from secureconnect.client import Client, connect
from secureconnect.testing.postgres_server import PostgresServer
from secureconnect.testing.process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.service]

SECRET = "shared by all the nodes of a test"
PASSWORD = "a long password"
FAR_S = 20.0
"""For what takes a moment: a hang fails here, with a name, and not at the end of the run."""


@pytest.fixture
def nodes(tmp_path: Path, redis_server: RedisServer, postgres_server: PostgresServer) -> Iterator[tuple[ServerProcess, ...]]:
    settings = {
        "SQL_URL": postgres_server.url,
        "REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/0",
        "SECRET": SECRET,
        "RATE_LIMITS": "off",
    }
    nodes = tuple(ServerProcess(tmp_path / name / "data", settings=settings) for name in ("n1", "n2"))
    try:
        for node in nodes:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


class Face:
    """One user's HTTP requests to one node."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self._url + path, headers=self._headers, timeout=FAR_S)

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer = httpx.post(self._url + path, json=body, headers=self._headers, timeout=FAR_S)
        assert answer.status_code < 300, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def register(self, name: str) -> dict[str, Any]:
        fields = {"email": f"{name}@example.org", "username": name, "password": PASSWORD, "display_name": name}
        return self.post("/v1/auth/register", fields)

    def open_room(self, *members: str) -> str:
        wish = {"type": "group", "title": "room", "participant_ids": members, "is_e2ee_enabled": False}
        return str(self.post("/v1/conversations", wish)["conversation_id"])


async def texts(client: Client, count: int) -> list[str]:
    """Of the next messages."""
    found: list[str] = []
    with trio.fail_after(FAR_S):
        async for event in client.events():
            if event.name == "message.created":
                found.append(event.data["content"])
                if len(found) == count:
                    break
    return found


async def test_what_one_node_stores_the_other_delivers_whatever_becomes_of_redis(
    nodes: tuple[ServerProcess, ServerProcess], redis_server: RedisServer
) -> None:
    first, second = (Face(node.url) for node in nodes)
    anna, bert = first.register("anna"), second.register("bert")
    room = Face(nodes[0].url, anna["access_token"]).open_room(bert["user"]["user_id"])
    async with (
        connect(nodes[0].url, token=anna["access_token"]) as here,
        connect(nodes[1].url, token=bert["access_token"]) as there,
    ):
        await here.send(room, "with redis")
        assert await texts(there, 1) == ["with redis"]
        redis_server.kill()
        await here.send(room, "without redis")
        assert await texts(there, 1) == ["without redis"]
        redis_server.start()
        await here.send(room, "after its return")
        assert await texts(there, 1) == ["after its return"]


async def test_who_comes_on_one_node_is_there_on_the_other(nodes: tuple[ServerProcess, ServerProcess]) -> None:
    first, second = (Face(node.url) for node in nodes)
    anna, bert = first.register("anna"), second.register("bert")
    Face(nodes[0].url, anna["access_token"]).open_room(bert["user"]["user_id"])
    anna_id = anna["user"]["user_id"]
    async with connect(nodes[1].url, token=bert["access_token"]) as there:
        async with connect(nodes[0].url, token=anna["access_token"]):
            with trio.fail_after(FAR_S):
                async for event in there.events():
                    if event.name == "presence.changed" and event.data["user_id"] == anna_id:
                        break
            assert event.data == {"user_id": anna_id, "status": "online"}
            answer = Face(nodes[1].url, bert["access_token"]).get(f"/v1/presence?user_ids={anna_id}")
            assert answer.json()["data"] == {"presence": [{"user_id": anna_id, "status": "online"}]}
        with trio.fail_after(FAR_S):
            async for event in there.events():
                if event.name == "presence.changed" and event.data["user_id"] == anna_id:
                    break
        assert (event.data["status"], "last_seen" in event.data) == ("offline", True)


async def test_who_logs_out_on_one_node_is_out_on_the_other(nodes: tuple[ServerProcess, ServerProcess]) -> None:
    anna = Face(nodes[0].url).register("anna")
    here, there = (Face(node.url, anna["access_token"]) for node in nodes)
    assert there.get("/v1/conversations").status_code == 200
    here.post("/v1/auth/logout", {})
    with trio.fail_after(FAR_S):
        while there.get("/v1/conversations").status_code != 401:  # noqa: ASYNC110  # another process
            await trio.sleep(0.05)


async def test_a_node_starts_without_redis_and_waits_for_its_database(
    tmp_path: Path, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        port=0,
        secret=SECRET,
        sql_url=postgres_server.url,
        redis_url=f"redis://127.0.0.1:{redis_server.port}/0",
        shutdown_grace_s=0,
    )
    redis_server.kill()
    postgres_server.kill()
    server = SecureConnect(settings)
    ready = trio.Event()

    async def run() -> None:
        async with server:
            ready.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery, httpx.AsyncClient(timeout=FAR_S) as http:
        nursery.start_soon(run)
        with trio.fail_after(FAR_S):
            while not server.url:  # noqa: ASYNC110  # it has no event for that
                await trio.sleep(0.01)
            while True:
                with suppress(httpx.TransportError):
                    assert (await http.get(f"{server.url}/livez")).status_code == 200
                    break
                await trio.sleep(0.01)
        answer = await http.get(f"{server.url}/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "starting")
        refused = await http.get(f"{server.url}/v1/conversations", headers={"Authorization": "Bearer x"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert not ready.is_set()
        await trio.to_thread.run_sync(postgres_server.start)
        with trio.fail_after(FAR_S):
            await ready.wait()
        assert (await http.get(f"{server.url}/readyz")).status_code == 200
        health = (await http.get(f"{server.url}/healthz")).json()
        assert health["dependencies"]["redis"]["state"] == "down"
        nursery.cancel_scope.cancel()
