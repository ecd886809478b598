"""A whole server on real sockets for the permission tests: memory stores, cheap passwords, nothing else left out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from joserfc import jwt
from joserfc.jwk import OctKey
from tests.permissions.client import Documented, Operation, Reply, status_of
from trio_websocket import ConnectionRejected, wrap_client_stream

from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking
from secureconnect.config import Settings
from secureconnect.features.auth.passwords import Cost
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.server.openapi import document
from secureconnect.server.transport import open_listener

SECRET = b"a secret of thirty-two bytes or more"
DAY_S = 86_400
ANSWER_S = 5.0


class ServerClient:
    """`Client` over a running node."""

    def __init__(self, node: Node, url: str) -> None:
        self._url = url
        self.documented = Documented(json.loads(document(node.endpoints)))
        self.operations: Mapping[str, Operation] = {
            row.name: Operation(row.method, row.path, row.socket and not row.bare) for row in node.endpoints
        }

    async def http(
        self, method: str, path: str, *, query: Mapping[str, str], body: Mapping[str, object] | None, token: str | None
    ) -> Reply:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=self._url) as http:
            answer = await http.request(method, path, params=dict(query), json=body, headers=headers)
        if not answer.headers["content-type"].startswith("application/json"):
            self.documented.check(method, str(answer.request.url.path), answer.status_code, answer.text)
            return Reply(answer.status_code)
        read = answer.json()
        self.documented.check(method, str(answer.request.url.path), answer.status_code, read)
        return Reply(answer.status_code, read.get("data") or {}, str((read.get("error") or {}).get("code", "")))

    async def socket(self, method: str, params: Mapping[str, object], *, token: str | None) -> Reply:
        headers = [] if token is None else [(b"Authorization", f"Bearer {token}".encode())]
        frame: dict[str, Any] = {}
        refused = 0
        try:
            frame = await self._ask(headers, {"id": 1, "method": method, "params": params})
        except* ConnectionRejected as group:
            refused = next(leaf.status_code for leaf in group.exceptions if isinstance(leaf, ConnectionRejected))
        if refused:
            return Reply(refused)
        if "error" in frame:
            return Reply(status_of(frame["error"]["code"]), code=frame["error"]["code"])
        return Reply(200, frame["result"] or {})

    async def _ask(self, headers: list[tuple[bytes, bytes]], command: Mapping[str, object]) -> dict[str, Any]:
        host, port = self._url.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, host, "/v1/ws", extra_headers=headers)
            await socket.send_message(json.dumps(command))
            frame: dict[str, Any] = {}
            with trio.fail_after(ANSWER_S):
                while frame.get("id") != command["id"]:
                    frame = json.loads(await socket.get_message())
            await socket.aclose()
        return frame

    def expired(self, token: str) -> str:
        key = OctKey.import_key(SECRET)
        claims = jwt.decode(token, key, algorithms=["HS256"]).claims
        aged = {name: value - DAY_S if name in ("iat", "nbf", "exp") else value for name, value in claims.items()}
        return jwt.encode({"alg": "HS256"}, aged, key)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ServerClient]:
    ports = Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    settings = Settings(data_dir=tmp_path, port=0, shutdown_grace_s=0, rate_limits=False)
    node = Node(
        memory_bundle(),
        ports,
        settings,
        secret=SECRET,
        name=NodeId("n1"),
        shared=memory_shared(ports.clock),
        password_cost=Cost(passes=1, memory_kib=8),
        process=lambda: {"tasks": 1, "fds": 1, "rss_bytes": 1},
    )
    listener = open_listener("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(node.run, listener)
        yield ServerClient(node, listener.url)
        server.stop()
    assert node.unexpected() == 0
