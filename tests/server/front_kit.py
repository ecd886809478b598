"""A front over a small table of its own, and clients in memory that speak HTTP by hand: what the tests of the port play with.

Tokens are names: `alice` is a good token of alice; `expired` and anything not a word of letters are refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from tests.server.socket_kit import Clock, Ids

from secureconnect.errors import NotAuthenticated
from secureconnect.features.auth.model import Identity
from secureconnect.ids import SessionId, UserId
from secureconnect.ports import Transport
from secureconnect.server.asgi_bridge import Application
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Answer, Context, Document, Endpoint, NoParams
from secureconnect.server.exchange import Exchange
from secureconnect.server.front import Front
from secureconnect.server.front_connection import FrontLimits
from secureconnect.server.origins import Origins, TrustedProxies
from secureconnect.server.router import Router
from secureconnect.server.websocket_handshake import HandshakeRequest
from secureconnect.testing.network import WINDOW_BYTES, MemoryTransport, memory_pair


class EchoParams(msgspec.Struct):
    text: str
    n: int = 0


class ThingParams(msgspec.Struct):
    id: str
    text: str = ""
    limit: int = 0
    tags: list[str] = []
    key: str | None = None


class WaitParams(msgspec.Struct):
    wait_s: float = 25.0


class Thing(msgspec.Struct):
    id: str
    text: str
    limit: int
    tags: list[str]
    key: str | None
    user: str


@dataclass
class Table:
    """Operations whose handlers tests can hold up and look into."""

    contexts: list[Context] = field(default_factory=list)
    gate: trio.Event = field(default_factory=trio.Event)
    begun: trio.Event = field(default_factory=trio.Event)
    """Somebody waits at the gate."""
    waiting: int = 0
    cancelled: int = 0

    async def echo(self, context: Context, params: EchoParams) -> EchoParams:
        self.contexts.append(context)
        return params

    async def thing(self, context: Context, params: ThingParams) -> Thing:
        self.contexts.append(context)
        return Thing(params.id, params.text, params.limit, params.tags, params.key, context.me.user)

    async def make(self, context: Context, params: EchoParams) -> Answer:
        return Answer(params, headers={"X-Made": "yes\r\nEvil: 1"}, meta={"stale": True})

    async def wait(self, context: Context, params: object) -> str:
        self.waiting += 1
        self.begun.set()
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return "through"

    async def boom(self, context: Context, params: NoParams) -> object:
        raise ValueError("a bug")

    async def big(self, context: Context, params: ThingParams) -> str:
        return "x" * params.limit

    async def alive(self, context: Context, params: NoParams) -> Document:
        return Document(b'{"status":"alive"}')

    async def gone(self, context: Context, params: ThingParams) -> Answer:
        return Answer(status=204)

    def rows(self) -> list[Endpoint]:
        return [
            Endpoint(name="echo", method="POST", path="/v1/echo", params=EchoParams, call=self.echo, permission="public",
                     result=EchoParams),
            Endpoint(name="things.get", method="GET", path="/v1/things/:id", params=ThingParams, call=self.thing, result=Thing),
            Endpoint(name="things.change", method="PATCH", path="/v1/things/:id", params=ThingParams, call=self.thing,
                     result=Thing, headers={"idempotency-key": "key"}),
            Endpoint(name="things.remove", method="DELETE", path="/v1/things/:id", params=ThingParams, call=self.gone),
            Endpoint(name="things.make", method="POST", path="/v1/things", params=EchoParams, call=self.make, status=201,
                     permission="public", result=EchoParams, also=(("POST", "/v1/old/things"),)),
            Endpoint(name="wait.poll", method="GET", path="/v1/poll", params=WaitParams, call=self.wait, permission="public",
                     deadline="poll"),
            Endpoint(name="wait.long", method="POST", path="/v1/wait", params=NoParams, call=self.wait, permission="public"),
            Endpoint(name="boom", method="GET", path="/v1/boom", params=NoParams, call=self.boom, permission="public"),
            Endpoint(name="big", method="GET", path="/v1/big/:id", params=ThingParams, call=self.big, permission="public"),
            Endpoint(name="alive", method="GET", path="/livez", params=NoParams, call=self.alive, permission="public",
                     rate="none", bare=True, socket=False),
        ]  # fmt: skip


@dataclass
class SocketDoor:
    """A gateway that takes connections, notes what it got, says one line and closes."""

    taken: list[tuple[HandshakeRequest, bytes]] = field(default_factory=list)
    is_serving: int = 0

    def is_socket_path(self, path: str) -> bool:
        return path == "/v1/ws"

    async def serve(self, request: HandshakeRequest, transport: Transport, rest: bytes) -> bool:
        self.taken.append((request, rest))
        del request
        self.is_serving += 1
        with trio.move_on_after(10), suppress(OSError):
            await HttpClient(transport).send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            await transport.receive(100)
        self.is_serving -= 1
        transport.abort()
        return True


def authenticate(token: str) -> Identity:
    if token == "expired":
        raise NotAuthenticated("The token's life is over", code="TOKEN_EXPIRED")
    if not token.isalpha():
        raise NotAuthenticated("The token is not valid")
    return Identity(UserId(token), SessionId(f"{token}-main"), token, f"{token}@test", "user", 2_000_000_000)


class Ended(Exception):
    """The server sent no more; `rest` is what did not make a whole answer."""

    def __init__(self, rest: bytes) -> None:
        super().__init__(f"ended, with {rest!r} over")
        self.rest = rest


@dataclass(frozen=True)
class Received:
    """An answer as a client sees it. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # whatever the server says
        return msgspec.json.decode(self.body)

    @property
    def data(self) -> Any:  # noqa: ANN401
        return self.json["data"]

    @property
    def error(self) -> Any:  # noqa: ANN401
        return self.json["error"]

    @property
    def reason(self) -> str:
        return str(self.error.get("details", {}).get("reason"))


class HttpClient:
    """One connection's other end. Reads answers strictly: what it cannot read is an error of the test."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.unread = b""

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            await self.transport.wait_writable()
            rest = rest[self.transport.send_now(rest) :]

    async def ask(self, data: bytes) -> Received:
        await self.send(data)
        return await self.answer(head_only=data.startswith(b"HEAD "))

    async def answer(self, *, head_only: bool = False) -> Received:
        """The next answer. Raises: Ended, OSError."""
        head = await self._until(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        headers: dict[str, str] = {}
        for entry in lines:
            name, colon, value = entry.partition(": ")
            assert colon, entry
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        status = int(line[9:12])
        body = b""
        if not head_only and status >= 200 and status not in (204, 304):
            body = await self._body(headers)
        return Received(status, headers, body)

    async def end(self) -> bytes:
        """Everything up to the server's end. Raises: OSError for a reset."""
        with trio.fail_after(100):
            while data := await self.transport.receive(65_536):
                self.unread += data
        data, self.unread = self.unread, b""
        return data

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body = b""
            while size := int((await self._until(b"\r\n"))[:-2], 16):
                body += await self._exactly(size)
                assert await self._exactly(2) == b"\r\n"
            assert await self._exactly(2) == b"\r\n"
            return body
        if "content-length" in headers:
            return await self._exactly(int(headers["content-length"]))
        assert headers.get("connection") == "close", "a body without an end"
        return await self.end()

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self.unread:
            await self._more()
        at = self.unread.index(mark) + len(mark)
        data, self.unread = self.unread[:at], self.unread[at:]
        return data

    async def _exactly(self, size: int) -> bytes:
        while len(self.unread) < size:
            await self._more()
        data, self.unread = self.unread[:size], self.unread[size:]
        return data

    async def _more(self) -> None:
        with trio.fail_after(100):
            data = await self.transport.receive(65_536)
        if not data:
            raise Ended(self.unread)
        self.unread += data


@dataclass
class FrontWorld:
    """One front and what is around it. `nursery` runs its connections."""

    nursery: trio.Nursery
    table: Table
    door: SocketDoor
    dispatcher: Dispatcher
    exchange: Exchange
    front: Front
    tasks: int = 0

    def connect(
        self, *, window_bytes: int = WINDOW_BYTES, most_per_send: int | None = None, peer: str = "192.0.2.1:40000"
    ) -> HttpClient:
        client, server = memory_pair(window_bytes=window_bytes, most_per_send=most_per_send, client=peer)
        self.nursery.start_soon(self.front.serve_connection, server)
        return HttpClient(client)


@asynccontextmanager
async def open_front(
    *,
    limits: FrontLimits | None = None,
    web: Application | None = None,
    origins: Sequence[str] = (),
    proxies: Sequence[str] = (),
    rows: Sequence[Endpoint] | None = None,
    check: Callable[[str], Identity] = authenticate,
) -> AsyncIterator[FrontWorld]:
    """A front for the length of the block; at its end every connection must have ended or is cancelled."""
    table, door = Table(), SocketDoor()
    dispatcher = Dispatcher()
    exchange = Exchange(
        Router(table.rows() if rows is None else rows),
        dispatcher,
        authenticate=check,
        clock=Clock(),
        ids=Ids(),
        origins=Origins(origins),
        proxies=TrustedProxies(proxies),
    )
    front = Front(exchange, gateway=door, web=web, clock=Clock(), limits=limits or FrontLimits(), end_waits=table.gate.set)
    async with trio.open_nursery() as nursery:
        yield FrontWorld(nursery, table, door, dispatcher, exchange, front)
        nursery.cancel_scope.cancel()


def request(
    line: str = "GET /livez", headers: Mapping[str, str] | None = None, body: bytes | None = None, *, version: str = "1.1"
) -> bytes:
    """A well-formed request; `Host` and `Content-Length` are added."""
    lines = [f"{line} HTTP/{version}", "Host: test"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def transport_of(client: HttpClient) -> MemoryTransport:
    assert isinstance(client.transport, MemoryTransport)
    return client.transport
