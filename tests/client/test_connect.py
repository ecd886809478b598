"""The client against a real server, on both event loops: live events, resume after a killed server, polling and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from secureconnect.client import AuthenticationLost, Client, Event, ServerRefused, connect
from secureconnect.testing.process import ServerProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.service,
    # httpx leaves the iterator of a request's body behind when the connection is refused or the call is cancelled.
    pytest.mark.filterwarnings("ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"),
]
PATIENCE_S = 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Takes one socket at a time, so that a second client has to poll."""
    process = ServerProcess(tmp_path / "data", settings={"SOCKETS_MAX": "2", "SHUTDOWN_GRACE_S": "1"})
    process.start()
    yield process
    process.kill()


def post(server: ServerProcess, path: str, body: dict[str, object], token: str = "") -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=10)
    assert answer.status_code in (200, 201), answer.text
    return dict(answer.json()["data"])


def two_people(server: ServerProcess) -> tuple[str, str, str]:
    """Two tokens and the conversation of the two."""
    tokens = []
    for name in ("ada", "ben"):
        fields: dict[str, object] = {
            "email": f"{name}@example.org",
            "username": name,
            "password": "long enough",
            "display_name": name,
        }
        tokens.append(str(post(server, "/v1/auth/register", fields)["access_token"]))
    wish: dict[str, object] = {"type": "direct", "participant_usernames": ["ben"], "is_e2ee_enabled": False}
    return tokens[0], tokens[1], str(post(server, "/v1/conversations", wish, tokens[0])["conversation_id"])


async def until(client: Client, wanted: Callable[[Event], bool]) -> Event:
    async for event in client.events():
        if wanted(event):
            return event
    raise AssertionError("the client ended")


def says(text: str) -> Callable[[Event], bool]:
    return lambda event: event.name == "message.created" and event.data["content"] == text


async def test_a_message_arrives_live_and_a_killed_server_loses_nothing(server: ServerProcess) -> None:
    ada_token, ben_token, conversation = await anyio.to_thread.run_sync(two_people, server)
    with anyio.fail_after(PATIENCE_S):
        async with connect(server.url, token=ada_token) as ada, connect(server.url, token=ben_token) as ben:
            await ada.wait_state("live")
            await ben.wait_state("live")
            sent = await ada.send(conversation, "hello")
            got = await until(ben, says("hello"))
            assert (got.position, sent["ack"]) == (sent["sequence"], "stored")

            await anyio.to_thread.run_sync(server.kill)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ada.send, conversation, "while you were dead")
                await ben.wait_state("connecting", "offline", "polling")
                await anyio.to_thread.run_sync(server.start)
                got = await until(ben, says("while you were dead"))
            assert got.position == sent["sequence"] + 1
            assert ada.pending == 0


async def test_without_a_socket_it_polls_and_goes_back_when_there_is_one(server: ServerProcess) -> None:
    ada_token, ben_token, conversation = await anyio.to_thread.run_sync(two_people, server)
    with anyio.fail_after(2 * PATIENCE_S):
        async with connect(server.url, token=ada_token) as ada:
            async with connect(server.url, token=ada_token) as other:
                await ada.wait_state("live")
                await other.wait_state("live")
                async with connect(server.url, token=ben_token, channels=[f"conversation:{conversation}"]) as ben:
                    assert await ben.wait_state("polling", "live") == "polling"
                    await ada.send(conversation, "by poll")
                    assert (await until(ben, says("by poll"))).data["content"] == "by poll"
                    answer = await ben.send(conversation, "sent without a socket")
                    assert answer["ack"] == "stored"
                    await until(ada, says("sent without a socket"))
                    await until(ben, says("sent without a socket"))
                    cursors = ben.cursors()
            async with connect(server.url, token=ben_token, after=cursors) as ben:
                await ben.wait_state("live")
                await ada.send(conversation, "by socket")
                seen = []
                async for event in ben.events():
                    seen.append(event)
                    if says("by socket")(event):
                        break
    texts = [event.data["content"] for event in seen if event.name == "message.created"]
    assert texts == ["by socket"], "what the poll brought is not brought again"


async def test_a_refusal_is_the_senders_and_a_bad_token_ends_the_client(server: ServerProcess) -> None:
    ada_token, _, conversation = await anyio.to_thread.run_sync(two_people, server)
    with anyio.fail_after(PATIENCE_S):
        async with connect(server.url, token=ada_token) as ada:
            with pytest.raises(ServerRefused) as caught:
                await ada.send(conversation, "")
            assert caught.value.code == "VALIDATION_ERROR"
            listed = await ada.call("conversations.list")
            assert [row["conversation_id"] for row in listed["conversations"]] == [conversation]
        with pytest.raises(AuthenticationLost):
            async with connect(server.url, token="not a token") as nobody:
                await nobody.send(conversation, "never")
