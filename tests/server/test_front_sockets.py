"""The front on real sockets, with clients that share no code with it: what memory cannot show is shown here."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import trio
from structlog.testing import capture_logs
from tests.server.front_kit import FrontWorld, HttpClient, Table, authenticate, open_front, request
from tests.server.socket_kit import Clock, Ids

from secureconnect.ports import Transport
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.exchange import Exchange
from secureconnect.server.front_connection import FrontLimits
from secureconnect.server.router import Router
from secureconnect.server.transport import SocketTransport, open_listener
from secureconnect.server.web import make_app

QUICK = FrontLimits(body_bytes_max=100_000, head_deadline_s=0.2, idle_s=0.3, body_deadline_s=0.3, body_progress_s=0.2,
                    write_deadline_s=0.3, goodbye_s=0.3)  # fmt: skip


@dataclass
class Served:
    """A front that listens, and where."""

    world: FrontWorld
    port: int
    url: str
    ended: int = 0
    one_ended: trio.Event = field(default_factory=trio.Event)

    def dial(self, *, receive_buffer: int | None = None) -> HttpClient:
        made = socket.socket()
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.connect(("127.0.0.1", self.port))
        made.setblocking(False)
        return HttpClient(SocketTransport(made, "server"))

    async def serve(self, transport: Transport) -> None:
        await self.world.front.serve_connection(transport)
        self.ended += 1
        self.one_ended.set()

    async def wait_ended(self, count: int = 1) -> None:
        """Until `count` connections have ended since the start, and none is open."""
        while self.ended < count:
            self.one_ended = trio.Event()
            await self.one_ended.wait()
        assert self.world.front.connections == 0


@asynccontextmanager
async def listening(limits: FrontLimits | None = None) -> AsyncIterator[Served]:
    exchange = Exchange(Router(Table().rows()), Dispatcher(), authenticate=authenticate, clock=Clock(), ids=Ids())
    listener = open_listener("127.0.0.1", 0)

    async def accept(served: Served) -> None:
        while True:
            served.world.nursery.start_soon(served.serve, await listener.accept())

    try:
        async with open_front(limits=limits, web=make_app(exchange)) as world:
            served = Served(world, listener.port, listener.url)
            world.nursery.start_soon(accept, served)
            with trio.fail_after(20):
                yield served
    finally:
        listener.close()


async def test_an_ordinary_client_keeps_its_connection() -> None:
    async with listening() as served, httpx.AsyncClient(base_url=served.url) as client:
        for number in range(5):
            got = await client.post("/v1/echo", json={"text": "é" * 1000, "n": number})
            assert got.json()["data"] == {"text": "é" * 1000, "n": number}
        assert (await client.get("/docs")).status_code == 200
        big = await client.get("/v1/big/x", params={"limit": 3_000_000})
        assert len(big.json()["data"]) == 3_000_000
        assert (await client.head("/v1/big/x", params={"limit": 10})).content == b""
        assert served.world.front.counters.accepted == 1


async def test_many_clients_at_once() -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> None:
        got = await client.post("/v1/echo", json={"text": str(number)})
        assert got.json()["data"]["text"] == str(number)

    async with listening() as served, httpx.AsyncClient(base_url=served.url) as client, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, client, number)


async def test_an_early_refusal_survives_a_client_that_is_still_sending() -> None:
    """Closing over its bytes would be a reset, and the reset would overtake the answer."""
    async with listening(QUICK) as served:
        for _ in range(20):
            client = served.dial()
            await client.send(request("POST /v1/echo", {"Content-Length": "200000"}) + b"x" * 50_000)
            assert (await client.answer()).status == 413
            await client.send(b"x" * 50_000)
            client.transport.abort()


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with listening(QUICK) as served:
        client = served.dial(receive_buffer=4096)
        await client.send(request("GET /v1/big/x?limit=8000000"))
        await served.wait_ended()
        client.transport.abort()


@pytest.mark.parametrize("raw", [b"", b"GET /livez HT", request("POST /v1/echo", {"Content-Length": "9"}) + b"half"])
async def test_every_clock_runs_on_real_sockets(raw: bytes) -> None:
    async with listening(QUICK) as served:
        client = served.dial()
        await client.send(raw)
        if raw:
            assert (await client.answer()).status == 408
        assert await client.end() == b""
        client.transport.abort()
        await served.wait_ended()


@pytest.mark.parametrize("how", ["close", "reset", "half close"])
async def test_however_a_client_leaves_its_poll_ends(how: str) -> None:
    async with listening() as served:
        raw = socket.create_connection(("127.0.0.1", served.port))
        raw.sendall(request("GET /v1/poll"))
        await served.world.table.begun.wait()
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half close":
            raw.shutdown(socket.SHUT_WR)
        else:
            raw.close()
        await served.wait_ended()
        assert served.world.table.cancelled == 1
        raw.close()


async def test_resets_at_every_moment_leave_nothing_behind() -> None:
    def left() -> int:
        return len(os.listdir("/proc/self/fd"))

    asked = request("POST /v1/echo", body=b'{"text":"x"}') + request("GET /v1/big/x?limit=500000") + request("GET /docs")
    with capture_logs() as logs:
        async with listening() as served:
            before = left()
            moments = range(0, len(asked) + 1, 3)
            for at in moments:
                raw = socket.create_connection(("127.0.0.1", served.port))
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raw.sendall(asked[:at])
                if at % 2:
                    await trio.lowlevel.checkpoint()
                raw.close()
            await served.wait_ended(len(moments))
            assert left() == before
            assert served.world.dispatcher.counters.unexpected == 0
            assert served.world.front.unexpected == 0
    assert logs == []
