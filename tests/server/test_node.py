"""A whole node in memory, asked over its port: that its parts were told of one another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from tests.server.front_kit import HttpClient, Received, request
from trio.testing import wait_all_tasks_blocked

from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking
from secureconnect.config import Settings
from secureconnect.errors import CODES
from secureconnect.features.auth.model import Registration
from secureconnect.features.auth.passwords import Cost
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.testing.network import MemoryListener


@dataclass
class Home:
    node: Node
    listener: MemoryListener

    def connect(self) -> HttpClient:
        return HttpClient(self.listener.connect())

    async def ask(self, raw: bytes) -> Received:
        client = self.connect()
        got = await client.ask(raw)
        client.transport.abort()
        return got

    async def token(self) -> str:
        login = await self.node.auth.register(Registration("a@example.org", "a long password", "anna", "Anna"))
        return login.access_token

    async def figures(self) -> dict[tuple[str, str], float]:
        """(name, value of its one label) -> figure."""
        text = (await self.ask(request("GET /metrics"))).body.decode()
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}


@asynccontextmanager
async def open_home(settings: Settings) -> AsyncIterator[Home]:
    ports = Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    cheap = Cost(passes=1, memory_kib=8)
    node = Node(
        memory_bundle(),
        ports,
        settings,
        secret=b"x" * 32,
        name=NodeId("n1"),
        shared=memory_shared(ports.clock),
        password_cost=cheap,
    )
    listener = MemoryListener()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(node.run, listener)
            yield Home(node, listener)
            server.stop()
    assert node.unexpected() == 0


async def test_what_is_refused_before_any_operation_is_in_the_figures(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, shutdown_grace_s=0, request_body_bytes_max=1024)
    evil = {"Origin": "https://evil.example"}
    cases = [
        (request("GET /v1/conversations"), 401, "UNAUTHORIZED"),
        (request("GET /livez", evil), 403, "FORBIDDEN"),
        (request("GET /v1/nothing"), 404, "NOT_FOUND"),
        (request("PUT /livez"), 405, "METHOD_NOT_ALLOWED"),
        (request("CONNECT example.org:443"), 405, "METHOD_NOT_ALLOWED"),
        (request("POST /v1/auth/login", body=b"x" * 1025), 413, "TOO_LARGE"),
        (request("GET /livez", {"A": "b" * 40_000}), 431, "TOO_LARGE"),
        (request("POST /v1/auth/login", body=b"[]"), 400, "VALIDATION_ERROR"),
        (request("POST /v1/auth/login", body=rb'{"email":"\u0000"}'), 400, "VALIDATION_ERROR"),
        (b"NONSENSE\r\n\r\n", 400, "VALIDATION_ERROR"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "VALIDATION_ERROR"),
    ]
    async with open_home(settings) as home:
        for raw, status, _ in cases:
            assert (await home.ask(raw)).status == status
        found = await home.figures()
    counted = {label: value for (name, label), value in found.items() if name == "secureconnect_http_refused_total"}
    assert counted == {
        "UNAUTHORIZED": 1, "FORBIDDEN": 1, "NOT_FOUND": 1, "METHOD_NOT_ALLOWED": 2, "TOO_LARGE": 2, "VALIDATION_ERROR": 4,
    }  # fmt: skip
    assert set(counted) <= set(CODES)
    reasons = {label: value for (name, label), value in found.items() if name == "secureconnect_http_malformed_total"}
    assert reasons == {"head_too_large": 1, "request_line": 1, "bare_line_end": 1}
    assert found["secureconnect_http_connections", ""] >= 1


async def test_connections_above_their_setting_are_told_so_and_counted(tmp_path: Path) -> None:
    async with open_home(Settings(data_dir=tmp_path, shutdown_grace_s=0, http_connections_max=2)) as home:
        first, second = home.connect(), home.connect()
        assert (await first.ask(request())).status == 200
        assert (await second.ask(request())).status == 200
        with capture_logs():
            got = await home.ask(request())
        assert (got.status, got.error["code"], got.headers["retry-after"]) == (503, "SERVER_AT_CAPACITY", "1")
        queues = (await first.ask(request("GET /healthz"))).json["queues"]
        assert queues["http_connections"] == {"depth": 2, "bound": 2, "full_total": 1}
        second.transport.abort()
        await wait_all_tasks_blocked()
        assert (await home.figures())["secureconnect_http_connections_refused_total", ""] == 1


@pytest.mark.parametrize("line", ["GET /v1/realtime/poll?channels=all&wait_s=60&after=", "POST /v1/realtime/poll"])
async def test_a_poll_does_not_hold_up_the_end_of_the_server(line: str, tmp_path: Path) -> None:
    async with open_home(Settings(data_dir=tmp_path, shutdown_grace_s=600)) as home:
        token = {"Authorization": f"Bearer {await home.token()}"}
        client = home.connect()
        at = (await client.ask(request("GET /v1/realtime/poll?channels=all", token))).data["after"]
        ((channel, position),) = at.items()
        if line.startswith("GET"):
            await client.send(request(f"{line}{channel}:{position}", token))
        else:
            await client.send(
                request(
                    line, token, b'{"channels":"all","wait_s":60,"after":{"%b":"%b"}}' % (channel.encode(), position.encode())
                )
            )
        while home.node.polls.waiting == 0:
            await trio.lowlevel.checkpoint()
        assert home.node.server is not None
        home.node.server.stop()
        got = await client.answer()
        assert (got.status, got.data) == (200, {"events": [], "after": at})
        assert got.headers["connection"] == "close"
        assert await client.end() == b""
        client.transport.abort()
