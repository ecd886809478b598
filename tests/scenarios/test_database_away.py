"""One node whose PostgreSQL is killed and started: what goes on without it, what is refused, and what is true afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from tests.scenarios.test_two_nodes import FAR_S, SECRET, Face

from secureconnect.client import connect
from secureconnect.testing.postgres_server import PostgresServer
from secureconnect.testing.process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.service]


@pytest.fixture
def node(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[ServerProcess]:
    settings = {"SQL_URL": postgres_server.url, "SECRET": SECRET}
    node = ServerProcess(tmp_path / "data", settings=settings)
    try:
        node.start()
        yield node
    finally:
        node.kill()


async def receipts(node: ServerProcess) -> list[dict[str, Any]]:
    """Once there are any."""
    with trio.fail_after(FAR_S):
        while not (shown := Face(node.url).get("/healthz").json()["receipts"]):  # noqa: ASYNC110  # another process
            await trio.sleep(0.05)
    found: list[dict[str, Any]] = shown
    return found


async def known_to_be_away(node: ServerProcess) -> None:
    with trio.fail_after(FAR_S):
        while Face(node.url).get("/healthz").json()["dependencies"]["sql"]["state"] != "down":  # noqa: ASYNC110  # another process
            await trio.sleep(0.05)


def logged_out(node: ServerProcess, token: str) -> httpx.Response:
    return httpx.post(f"{node.url}/v1/auth/logout", headers={"Authorization": f"Bearer {token}"}, timeout=FAR_S)


def refresh(node: ServerProcess, token: str) -> httpx.Response:
    return httpx.post(f"{node.url}/v1/auth/refresh", json={"refresh_token": token}, timeout=FAR_S)


async def test_a_logout_holds_without_the_database_through_a_crash_and_is_stored_afterwards(
    node: ServerProcess, postgres_server: PostgresServer
) -> None:
    anna, bert = (Face(node.url).register(name) for name in ("anna", "bert"))
    postgres_server.kill()
    answer = logged_out(node, anna["access_token"])
    assert (answer.status_code, answer.json()["data"].get("ack")) == (200, "accepted")
    assert Face(node.url, anna["access_token"]).get("/v1/conversations").status_code == 401
    node.kill()
    await trio.to_thread.run_sync(postgres_server.start)
    await trio.to_thread.run_sync(node.start)
    assert Face(node.url, anna["access_token"]).get("/v1/conversations").status_code == 401
    assert Face(node.url, bert["access_token"]).get("/v1/conversations").status_code == 200
    (receipt,) = await receipts(node)
    assert (receipt["dependency"], receipt["kept"], receipt["applied"]) == ("sql", 1, 1)
    assert postgres_server.sql("SELECT session_id, reason FROM revocations") == f"{anna['session_id']}|logout"


async def test_who_was_there_goes_on_and_what_needs_the_database_says_when_to_come_back(
    node: ServerProcess, postgres_server: PostgresServer
) -> None:
    anna, bert = (Face(node.url).register(name) for name in ("anna", "bert"))
    room = Face(node.url, anna["access_token"]).open_room(bert["user"]["user_id"])
    channel = f"conversation:{room}"
    async with connect(node.url, token=anna["access_token"]) as client:
        await client.send(room, "there")
        here = Face(node.url, anna["access_token"])
        polled = here.get(f"/v1/realtime/poll?channels={channel}").json()["data"]
        here.get("/v1/realtime/poll?channels=all")
        postgres_server.kill()
        after = f"{channel}:{polled['after'][channel]}"
        assert here.get(f"/v1/realtime/poll?channels={channel}&after={after}&wait_s=0").status_code == 200
        assert here.get("/v1/realtime/poll?channels=all").status_code == 200
        stranger = Face(node.url, bert["access_token"]).get(f"/v1/realtime/poll?channels={channel}")
        refreshed = refresh(node, anna["refresh_token"])
        history = here.get(f"/v1/messages?conversation_id={room}")
        for refused in (stranger, refreshed, history):
            assert refused.status_code == 503, refused.text
            assert "retry-after" in refused.headers
        await known_to_be_away(node)
        await trio.to_thread.run_sync(postgres_server.start)
        await receipts(node)
        with trio.fail_after(FAR_S):
            while (again := refresh(node, anna["refresh_token"])).status_code == 503:  # noqa: ASYNC110  # another process
                await trio.sleep(0.05)
        assert again.status_code == 200, again.text
        token = again.json()["data"]["access_token"]
        with trio.fail_after(FAR_S):
            while (listed := Face(node.url, token).get("/v1/conversations")).status_code == 503:  # noqa: ASYNC110  # as above
                await trio.sleep(0.05)
        assert [one["conversation_id"] for one in listed.json()["data"]["conversations"]] == [room]
