"""A removed member's open socket, when the removing request dies in the moment in which its change commits: a whole server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from secureconnect.backends.memory.bundle import memory_bundle
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking
from secureconnect.config import Settings
from secureconnect.features.auth.passwords import Cost
from secureconnect.hub import MemoryBus
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
        store_deadline_s=0.2,
        store_attempt_deadline_s=0.2,
    )
    ports = Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    cost = Cost(passes=1, memory_kib=8)
    node = Node(bundle, ports, settings, secret=bytes(32), name=NodeId("n1"), bus=MemoryBus(), password_cost=cost)
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


async def heard(socket: Any, wanted: Any) -> dict[str, Any]:  # noqa: ANN401  # trio-websocket is untyped here
    """The first frame that is wanted."""
    with trio.fail_after(ANSWER_S):
        while True:
            frame: dict[str, Any] = json.loads(await socket.get_message())
            if wanted(frame):
                return frame
