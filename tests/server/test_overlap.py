"""Commands of one socket that overlap: messages share the store's transactions, and nobody can tell but by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec
from tests.server.socket_kit import open_world
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.sync.client import connect

from secureconnect.testing.process import ServerProcess
from secureconnect.testing.socket_client import SocketClient


async def say_all(client: SocketClient, *commands: str) -> None:
    """`method text`, each under its number."""
    for number, command in enumerate(commands, 1):
        method, text = command.split()
        await client.say({"id": number, "method": method, "params": {"text": text}})
    await wait_all_tasks_blocked()


async def ids(client: SocketClient, count: int) -> Sequence[object]:
    return [(await client.message())["id"] for _ in range(count)]


async def test_answers_leave_in_the_order_of_the_commands_however_these_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await say_all(client, "wait.placed a", "wait.placed b", "wait.placed c")
        assert world.log == ["begin a", "begin b", "begin c"]
        for gate in ("c", "b"):
            world.gates[gate].set()
            await wait_all_tasks_blocked()
        assert world.log[3:] == ["end c", "end b"]
        world.gates["a"].set()
        assert await ids(client, 3) == [1, 2, 3]


async def test_any_other_command_waits_for_all_before_it_and_holds_up_all_behind_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await say_all(client, "wait.placed a", "wait.placed b", "echo between", "wait.placed c")
        world.gates["b"].set()
        await wait_all_tasks_blocked()
        assert world.log == ["begin a", "begin b", "end b"]
        world.gates["a"].set()
        await wait_all_tasks_blocked()
        assert world.log[3:] == ["end a", "echo between", "begin c"]
        world.gates["c"].set()
        assert await ids(client, 4) == [1, 2, 3, 4]


async def test_a_socket_that_closes_meanwhile_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with open_world() as world:  # which looks for what is left
        client = await world.connect()
        await say_all(client, "wait.placed a", "wait.placed b", "echo never")
        await client.close()
        world.gates["b"].set()
        world.gates["a"].set()
        await client.end()
        assert "echo never" not in world.log


async def test_a_session_that_ends_answers_all_that_have_begun(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await say_all(client, "wait.placed a", "wait.placed b", "echo never")
        world.end_session("alice")
        world.gates["b"].set()
        await wait_all_tasks_blocked()
        world.gates["a"].set()
        assert (await client.message())["event"] == "session.ended"
        assert await ids(client, 2) == [1, 2]
        assert (await client.end()).code == 1008


def test_a_hundred_messages_at_once_are_stored_and_answered_in_their_order(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    server.start()
    try:
        with httpx.Client(base_url=server.url) as http:
            people = [
                http.post(
                    "/v1/auth/register",
                    json={"email": f"{n}@example.org", "username": n, "password": "a long password", "display_name": n},
                ).json()["data"]
                for n in ("ada", "bob")
            ]
            token = people[0]["access_token"]
            conversations = [
                http.post(
                    "/v1/conversations",
                    json={"type": "group", "participant_ids": [people[1]["user"]["user_id"]], "is_e2ee_enabled": False},
                    headers={"Authorization": f"Bearer {token}"},
                ).json()["data"]["conversation_id"]
                for _ in range(2)
            ]
        with connect(server.url.replace("http", "ws") + f"/v1/ws?token={token}") as socket:
            socket.recv(timeout=5)
            for n in range(100):
                params = {"conversation_id": conversations[n % 2], "content": f"number {n}" if n % 10 else ""}
                socket.send(msgspec.json.encode({"id": n, "method": "messages.send", "params": params}).decode())
            answers = [msgspec.json.decode(socket.recv(timeout=10)) for _ in range(100)]
    finally:
        server.stop()
    assert [answer["id"] for answer in answers] == list(range(100))
    assert [answer["id"] for answer in answers if "error" in answer] == list(range(0, 100, 10))
    for conversation in conversations:
        sent = [answer["result"] for answer in answers if answer.get("result", {}).get("conversation_id") == conversation]
        first = sent[0]["sequence"]
        assert [message["sequence"] for message in sent] == list(range(first, first + len(sent)))
