"""What a change of membership does to open sockets and to who comes back, on a whole server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking
from secureconnect.config import Settings
from secureconnect.features.auth.passwords import Cost
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.server.transport import open_listener

ANSWER_S = 5.0


async def person(http: httpx.AsyncClient, name: str) -> tuple[str, str]:
    """A new account: id and token."""
    fields = {"email": f"{name}@example.org", "username": name, "password": "a long password", "display_name": name}
    data = (await http.post("/v1/auth/register", json=fields)).json()["data"]
    return data["user"]["user_id"], data["access_token"]


async def test_a_removal_whose_request_ran_out_of_time_unsubscribes_the_open_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = memory_bundle()
    settings = Settings(
        data_dir=tmp_path,
        port=0,
        shutdown_grace_s=0,
        request_deadline_s=0.5,
        store_deadline_s=5,
        store_attempt_deadline_s=0.2,
    )
    ports = Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    cost = Cost(passes=1, memory_kib=8)
    node = Node(
        bundle, ports, settings, secret=bytes(32), name=NodeId("n1"), shared=memory_shared(ports.clock), password_cost=cost
    )
    store = bundle.conversations.leave

    async def commit_and_hang(*args: Any, **values: Any) -> None:  # noqa: ANN401  # whatever the store takes
        await store(*args, **values)
        await trio.sleep_forever()

    monkeypatch.setattr(bundle.conversations, "leave", commit_and_hang)
    listener = open_listener("127.0.0.1", 0)
    async with trio.open_nursery() as nursery, httpx.AsyncClient(base_url=listener.url) as http:
        server = await nursery.start(node.run, listener)
        (_, ada), (bob_id, bob) = await person(http, "ada"), await person(http, "bob")
        headers = {"Authorization": f"Bearer {ada}"}
        new = {"type": "group", "participant_ids": [bob_id], "is_e2ee_enabled": False}
        group = (await http.post("/v1/conversations", json=new, headers=headers)).json()["data"]["conversation_id"]
        async with open_websocket_url(f"{listener.url.replace('http', 'ws')}/v1/ws?token={bob}") as socket:
            await socket.send_message(json.dumps({"id": 1, "method": "subscribe", "params": {"channels": "all"}}))
            await heard(socket, lambda frame: frame.get("id") == 1)
            answer = await http.delete(f"/v1/conversations/{group}/participants/{bob_id}", headers=headers)
            assert answer.status_code == 504
            frame = await heard(socket, lambda frame: frame.get("event") == "unsubscribed")
            assert frame["data"] == {"channel": f"conversation:{group}", "reason": "removed"}
        server.stop()


@pytest.mark.parametrize("visibility", ["all", "from_join"])
async def test_who_is_added_while_away_gets_all_since_by_poll_and_by_socket(tmp_path: Path, visibility: str) -> None:
    settings = Settings(data_dir=tmp_path, port=0, shutdown_grace_s=0)
    ports = Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    cost = Cost(passes=1, memory_kib=8)
    node = Node(
        memory_bundle(),
        ports,
        settings,
        secret=bytes(32),
        name=NodeId("n1"),
        shared=memory_shared(ports.clock),
        password_cost=cost,
    )
    listener = open_listener("127.0.0.1", 0)
    async with trio.open_nursery() as nursery, httpx.AsyncClient(base_url=listener.url) as http:
        server = await nursery.start(node.run, listener)
        (_, ada), (bob_id, bob) = await person(http, "ada"), await person(http, "bob")
        as_ada, as_bob = {"Authorization": f"Bearer {ada}"}, {"Authorization": f"Bearer {bob}"}
        cyd_id, _ = await person(http, "cyd")
        poll: dict[str, object] = {"channels": "all", "wait_s": 2}
        was = (await http.post("/v1/realtime/poll", json=poll, headers=as_bob)).json()["data"]["after"]
        new = {"type": "group", "participant_ids": [cyd_id], "is_e2ee_enabled": False, "history_visibility": visibility}
        group = (await http.post("/v1/conversations", json=new, headers=as_ada)).json()["data"]["conversation_id"]
        await http.post("/v1/messages", json={"conversation_id": group, "content": "before"}, headers=as_ada)
        await http.post(f"/v1/conversations/{group}/participants", json={"user_ids": [bob_id]}, headers=as_ada)
        await http.post("/v1/messages", json={"conversation_id": group, "content": "since"}, headers=as_ada)
        expected = [(3, "member.joined"), (4, "message.created")]
        polled = (await http.post("/v1/realtime/poll", json=poll | {"after": was}, headers=as_bob)).json()["data"]
        there = [event for event in polled["events"] if event["channel"] == f"conversation:{group}"]
        assert [(event["sequence"], event["event"]) for event in there] == expected
        async with open_websocket_url(f"{listener.url.replace('http', 'ws')}/v1/ws?token={bob}") as socket:
            params = {"channels": "all", "after": was}
            await socket.send_message(json.dumps({"id": 1, "method": "subscribe", "params": params}))
            for sequence, kind in expected:
                frame = await heard(socket, lambda frame: frame.get("channel") == f"conversation:{group}")
                assert (frame["sequence"], frame["event"]) == (sequence, kind)
        server.stop()


async def heard(socket: Any, wanted: Any) -> dict[str, Any]:  # noqa: ANN401  # trio-websocket is untyped here
    """The first frame that is wanted."""
    with trio.fail_after(ANSWER_S):
        while True:
            frame: dict[str, Any] = json.loads(await socket.get_message())
            if wanted(frame):
                return frame
