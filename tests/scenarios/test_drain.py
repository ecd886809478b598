"""SIGTERM under load: who reads is told when to come back, who does not read holds nothing, and nothing is lost."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from secureconnect.testing.process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.service]

READERS = 450
STALLED = 50
GRACE_S = 6.0
CONTENT = "x" * 8000
"""Large enough that a few hundred of them fill the kernel's buffers of a peer that never reads."""
MESSAGES = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    settings = {"SOCKETS_MAX": "1000", "SHUTDOWN_GRACE_S": str(GRACE_S), "ACCESS_TOKEN_S": "7200"}
    process = ServerProcess(tmp_path / "data", settings=settings)
    process.start()
    yield process
    process.kill()


class Room:
    """One conversation with one owner, over HTTP."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        fields = {"email": "a@example.org", "username": "anna", "password": "a long password", "display_name": "Anna"}
        self.token = self.post("/v1/auth/register", fields)["access_token"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"
        wish = {
            "type": "group",
            "title": "room",
            "participant_ids": [],
            "participant_usernames": [self.friend()],
            "is_e2ee_enabled": False,
        }
        self.id = str(self.post("/v1/conversations", wish)["conversation_id"])

    def friend(self) -> str:
        fields = {"email": "b@example.org", "username": "bert", "password": "a long password", "display_name": "Bert"}
        self.post("/v1/auth/register", fields)
        return "bert"

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json()["data"])

    def say(self, text: str) -> str:
        return str(self.post("/v1/messages", {"conversation_id": self.id, "content": text})["message_id"])

    def said(self) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            query = {"conversation_id": self.id, "limit": "100", **({"cursor": cursor} if cursor else {})}
            data = self.http.get("/v1/messages", params=query).json()["data"]
            found += [m["message_id"] for m in data["messages"]]
            cursor = data["next_cursor"] if data["has_more"] else None
            if cursor is None:
                return found


def stall(url: str, token: str, channel: str) -> socket.socket:
    """A peer that shakes hands, subscribes, and never reads again."""
    host, port = url.removeprefix("http://").split(":")
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(10)
    peer.connect((host, int(port)))
    key = b64encode(b"0123456789abcdef").decode()
    head = f"GET /v1/ws?token={token} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    peer.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    assert peer.recv(12) == b"HTTP/1.1 101"
    text = json.dumps({"id": 1, "method": "subscribe", "params": {"channels": [channel]}}).encode()
    peer.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)  # a mask of zeros
    return peer


class Goodbyes:
    def __init__(self) -> None:
        self.told: list[int] = []
        self.codes: list[int] = []
        self.subscribed = 0
        self.ready = trio.Event()

    async def read(self, connection: WebSocketConnection, channel: str) -> None:
        await connection.send_message(json.dumps({"id": 1, "method": "subscribe", "params": {"channels": [channel]}}))
        try:
            while True:
                frame = json.loads(await connection.get_message())
                if frame.get("id") == 1:
                    self.subscribed += 1
                    if self.subscribed == READERS:
                        self.ready.set()
                if frame.get("event") == "drain":
                    self.told.append(int(frame["data"]["reconnect_in_ms"]))
        except ConnectionClosed as closed:
            self.codes.append(int(closed.reason.code) if closed.reason is not None else 1006)


async def test_a_drain_tells_every_reader_and_waits_for_no_stalled_peer(server: ServerProcess) -> None:
    room = Room(server.url)
    channel = f"conversation:{room.id}"
    goodbyes = Goodbyes()
    stalled = [stall(server.url, room.token, channel) for _ in range(STALLED)]
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for _ in range(READERS):
                nursery.start_soon(reader, server.url, room.token, channel, goodbyes)
            await goodbyes.ready.wait()
            stored = [await trio.to_thread.run_sync(room.say, CONTENT) for _ in range(MESSAGES)]
            server.send_signal(signal.SIGTERM)
            try:
                code = await trio.to_thread.run_sync(server.wait, GRACE_S + 1)
            except subprocess.TimeoutExpired:
                pytest.fail("the server outlived its grace")
    for peer in stalled:
        peer.close()
    assert code == 0
    assert len(goodbyes.told) == READERS
    assert goodbyes.codes == [1012] * READERS
    assert max(goodbyes.told) > min(goodbyes.told), "everybody was told the same moment: a herd"
    server.start()
    room.http.base_url = httpx.URL(server.url)
    assert sorted(room.said()) == sorted(stored)
    room.http.close()


async def reader(url: str, token: str, channel: str, goodbyes: Goodbyes) -> None:
    host, port = url.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(nursery, stream, host, f"/v1/ws?token={token}", max_message_size=1 << 20)
        await goodbyes.read(connection, channel)
