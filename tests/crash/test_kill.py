"""kill -9 at any moment: what was acknowledged as stored is there afterwards, once, and every client saw it all in order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from secureconnect.client import Client, NotConnected, connect
from secureconnect.testing.process import ServerProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    # httpx leaves the iterator of a request's body behind when the connection is refused or the call is cancelled.
    pytest.mark.filterwarnings("ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"),
]

SENDERS = 50
CONVERSATIONS = 5
KILLS = 20
ACKS_BETWEEN_KILLS = (1, 400)
"""The moment of a kill is a number of acknowledgements, drawn by chance: under load that is any moment of the server's work."""
PATIENCE_S = 240


class Ledger:
    """What the clients know: acknowledged sends, and the entries each client received of each channel."""

    def __init__(self) -> None:
        self.acked: dict[str, tuple[str, int]] = {}  # message id -> conversation, sequence
        self.sent = 0
        self.progress = trio.Event()

    def ack(self, message: Mapping[str, Any]) -> None:
        self.acked[message["message_id"]] = (message["conversation_id"], message["sequence"])
        self.progress.set()
        self.progress = trio.Event()

    async def wait_acks(self, count: int) -> None:
        while len(self.acked) < count:
            await self.progress.wait()


async def people(url: str) -> list[tuple[str, str]]:
    """(user id, token) of every sender."""
    made = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for n in range(SENDERS):
            fields = {
                "email": f"s{n}@example.org",
                "username": f"sender{n}",
                "password": "a long password",
                "display_name": f"S{n}",
            }
            data = (await http.post("/v1/auth/register", json=fields)).json()["data"]
            made.append((data["user"]["user_id"], data["access_token"]))
    return made


async def conversations(url: str, made: list[tuple[str, str]]) -> list[str]:
    opened = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for n in range(CONVERSATIONS):
            members = made[n::CONVERSATIONS]
            wish = {"type": "group", "title": f"room {n}", "participant_ids": [m[0] for m in members], "is_e2ee_enabled": False}
            answer = await http.post("/v1/conversations", json=wish, headers={"Authorization": f"Bearer {members[0][1]}"})
            opened.append(answer.json()["data"]["conversation_id"])
    return opened


class Receiver:
    """One client's view: the numbers of the entries it was given, in the order of their coming."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self._more = trio.Event()

    async def run(self, client: Client) -> None:
        async for event in client.events():
            if event.channel.startswith("conversation:") and isinstance(event.position, int):
                self.got.append(event.position)
                self._more.set()
                self._more = trio.Event()

    async def wait_for(self, sequence: int) -> None:
        while not self.got or self.got[-1] < sequence:
            await self._more.wait()


class Phases:
    """The test's own clock: senders stop, all have stopped, everybody has compared."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.settled = trio.Event()
        self.senders_left = SENDERS

    def sender_ended(self) -> None:
        self.senders_left -= 1
        if not self.senders_left:
            self.settled.set()


async def killer(server: ServerProcess, ledger: Ledger, chance: random.Random) -> None:
    for _ in range(KILLS):
        await ledger.wait_acks(len(ledger.acked) + chance.randint(*ACKS_BETWEEN_KILLS))
        await trio.to_thread.run_sync(server.kill)
        await trio.to_thread.run_sync(server.start)


async def read_log(client: Client, conversation: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    while True:
        after = entries[-1]["sequence"] if entries else 0
        try:
            page = await client.call("conversations.log", {"conversation_id": conversation, "after": after, "limit": 100})
        except NotConnected:
            continue
        entries += page["entries"]
        if not page["entries"]:
            return entries


async def test_twenty_kills_lose_nothing_store_nothing_twice_and_every_client_sees_all(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", settings={"SOCKETS_MAX": "2000", "ACCESS_TOKEN_S": "7200"})
    server.start()
    ledger, seed = Ledger(), random.SystemRandom().randint(0, 2**32)
    chance = random.Random(seed)
    try:
        with trio.fail_after(PATIENCE_S):
            await run(server, ledger, chance)
    finally:
        print(f"seed {seed}: {ledger.sent} sent, {len(ledger.acked)} acknowledged, {KILLS} kills")  # noqa: T201
        server.stop()


async def run(server: ServerProcess, ledger: Ledger, chance: random.Random) -> None:
    made = await people(server.url)
    rooms = await conversations(server.url, made)
    receivers, phases = [Receiver() for _ in made], Phases()
    logs: dict[str, list[dict[str, Any]]] = {}

    async def person(n: int) -> None:
        room = rooms[n % CONVERSATIONS]
        async with (
            connect(server.url, token=made[n][1], after={f"conversation:{room}": 0}) as client,
            trio.open_nursery() as mine,
        ):
            mine.start_soon(receivers[n].run, client)
            while not phases.over.is_set():
                ledger.sent += 1
                ledger.ack(await client.send(room, f"message {ledger.sent}"))
            phases.sender_ended()
            await phases.settled.wait()
            logs[room] = await read_log(client, room)
            await receivers[n].wait_for(logs[room][-1]["sequence"])
            mine.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for n in range(SENDERS):
            nursery.start_soon(person, n)
        await killer(server, ledger, chance)
        phases.over.set()
    check(ledger, rooms, logs, [receiver.got for receiver in receivers])


def check(ledger: Ledger, rooms: list[str], logs: dict[str, list[dict[str, Any]]], got: list[list[int]]) -> None:
    stored: Counter[str] = Counter()
    place: dict[str, tuple[str, int]] = {}
    for room in rooms:
        numbers = [entry["sequence"] for entry in logs[room]]
        assert numbers == list(range(1, len(numbers) + 1)), "the log has a hole"
        for entry in logs[room]:
            if entry["event"] == "message.created":
                stored[entry["data"]["message_id"]] += 1
                place[entry["data"]["message_id"]] = (room, entry["sequence"])
    lost = [m for m in ledger.acked if m not in stored]
    assert not lost, f"{len(lost)} acknowledged messages are lost"
    assert not [m for m, n in stored.items() if n > 1], "stored twice"
    assert all(place[m] == where for m, where in ledger.acked.items()), "a number changed"
    for n, seen in enumerate(got):
        want = list(range(1, len(logs[rooms[n % CONVERSATIONS]]) + 1))
        assert seen == want, f"client {n} saw {len(seen)} of {len(want)}"
