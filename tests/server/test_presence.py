"""What sockets and polls do to their user's presence, and who hears of it: on virtual time, and once on a whole node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from tests.server.socket_kit import World, open_world
from tests.server.test_membership import heard, person
from tests.server.test_polling import Poller
from trio.testing import MockClock
from trio_websocket import open_websocket_url

from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.presence import run_presence
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking
from secureconnect.config import Settings
from secureconnect.features.auth.passwords import Cost
from secureconnect.features.presence import service
from secureconnect.features.presence.leasing import LINGER_S
from secureconnect.features.presence.service import DEBOUNCE_S
from secureconnect.ids import NodeId, UserId
from secureconnect.node import Node, Ports
from secureconnect.server.transport import open_listener
from secureconnect.testing.socket_client import SocketClient

ALICE = UserId("alice")
SLACK_S = 2.0
"""Rounds of both tasks."""


async def told(client: SocketClient) -> dict[str, Any]:
    return await client.message()


async def listening(world: World) -> SocketClient:
    """Bob, who has the conversation `a` open; what is told of himself has come."""
    bob = await world.connect("bob")
    await bob.call("subscribe", channels=["conversation:a"])
    world.nursery.start_soon(lambda: run_presence(world.presence, random=lambda: 0.5))
    assert (await told(bob))["data"]["user_id"] == "bob"
    return bob


async def test_a_co_member_hears_of_the_first_socket_and_of_the_last_ones_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        bob = await listening(world)
        began_s = trio.current_time()
        alice = [await world.connect("alice") for _ in range(2)]
        event = await told(bob)
        assert event == {
            "event": "presence.changed",
            "channel": "conversation:a",
            "data": {"user_id": "alice", "status": "online"},
        }
        assert DEBOUNCE_S <= trio.current_time() - began_s <= DEBOUNCE_S + SLACK_S
        await alice[0].close()
        with trio.move_on_after(LINGER_S + DEBOUNCE_S + SLACK_S) as waiting:
            await told(bob)
        assert waiting.cancelled_caught, "one socket is left"
        ended_s = trio.current_time()
        await alice[1].close()
        event = await told(bob)
        assert (event["data"]["status"], "last_seen" in event["data"]) == ("offline", True)
        assert LINGER_S + DEBOUNCE_S <= trio.current_time() - ended_s <= LINGER_S + DEBOUNCE_S + SLACK_S


async def test_a_reconnect_is_no_flicker_for_who_listens(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        bob = await listening(world)
        alice = await world.connect("alice")
        assert (await told(bob))["data"]["status"] == "online"
        await alice.close()
        await trio.sleep(LINGER_S - 1)
        await world.connect("alice")
        with trio.move_on_after(30) as waiting:
            await told(bob)
        assert waiting.cancelled_caught


async def test_a_fresh_token_on_an_open_socket_counts_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        alice = await world.connect("alice")
        await alice.call("auth", token="alice")
        assert world.presence.users == 1
        await alice.close()
        await trio.sleep(LINGER_S + SLACK_S)
        await world.presence.lease()
        assert world.presence.users == 0


async def test_a_socket_without_a_token_is_nobodys(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin()
        await client.upgraded()
        assert world.presence.users == 0
        await client.close()


async def test_who_polls_is_there_and_between_two_polls(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller = Poller(world)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: poller.poll(channels="all", after="conversation:a:0", wait_s=10))
            await trio.sleep(5)
            assert await is_there(world)
        await trio.sleep(LINGER_S - 1)
        await world.presence.lease()
        assert await is_there(world)
        await trio.sleep(1)
        await world.presence.lease()
        assert not await is_there(world)


async def is_there(world: World) -> bool:
    (one,), _ = await world.presence.read(ALICE, [ALICE])
    return one.is_there


async def test_a_whole_node_tells_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DEBOUNCE_S", 0.0)
    clock = SystemClock()
    node = Node(
        memory_bundle(),
        Ports(clock, SystemRng(), SystemIds(), ThreadBlocking()),
        Settings(data_dir=tmp_path, port=0, shutdown_grace_s=0),
        secret=bytes(32),
        name=NodeId("n1"),
        shared=memory_shared(clock),
        password_cost=Cost(passes=1, memory_kib=8),
    )
    listener = open_listener("127.0.0.1", 0)
    async with trio.open_nursery() as nursery, httpx.AsyncClient(base_url=listener.url) as http:
        server = await nursery.start(node.run, listener)
        (ada_id, ada), (bob_id, bob) = await person(http, "ada"), await person(http, "bob")
        new = {"type": "direct", "participant_ids": [bob_id], "is_e2ee_enabled": False}
        room = (await http.post("/v1/conversations", json=new, headers=bearer(ada))).json()["data"]["conversation_id"]
        ws = listener.url.replace("http", "ws") + "/v1/ws?token="
        async with open_websocket_url(ws + bob) as there:
            await there.send_message('{"id": 1, "method": "subscribe", "params": {"channels": "all"}}')
            await heard(there, lambda frame: frame.get("id") == 1)
            async with open_websocket_url(ws + ada):
                event = await heard(there, lambda frame: frame.get("data", {}).get("user_id") == ada_id)
                assert (event["event"], event["channel"]) == ("presence.changed", f"conversation:{room}")
                asked = {"user_ids": f"{ada_id},{bob_id}"}
                answer = await http.get("/v1/presence", params=asked, headers=bearer(bob))
                assert answer.json()["data"] == {
                    "presence": [{"user_id": ada_id, "status": "online"}, {"user_id": bob_id, "status": "online"}]
                }
        server.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
