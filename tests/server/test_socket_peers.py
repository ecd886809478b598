"""Independent WebSocket clients against the gateway behind the real front, on real sockets: what our own client may hide."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
import trio_websocket
from tests.server.socket_kit import Ids, World, open_world
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect

from secureconnect.server.exchange import Exchange
from secureconnect.server.front import Front
from secureconnect.server.router import Router
from secureconnect.server.transport import open_listener
from secureconnect.server.websocket import GatewayLimits


@asynccontextmanager
async def served(limits: GatewayLimits | None = None) -> AsyncIterator[tuple[World, str]]:
    """A world behind a port, and its socket address."""
    with trio.fail_after(20):
        async with open_world(limits) as world:
            exchange = Exchange(
                Router([]), world.dispatcher, authenticate=world.tokens.authenticate, clock=world.tokens.clock, ids=Ids()
            )
            front = Front(exchange, gateway=world.gateway, web=None, clock=world.tokens.clock)
            listener = open_listener("127.0.0.1", 0)

            async def accept() -> None:
                while True:
                    world.nursery.start_soon(front.serve_connection, await listener.accept())

            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept)
                yield world, f"ws://127.0.0.1:{listener.port}/v1/ws"
                accepting.cancel_scope.cancel()
            listener.close()


@asynccontextmanager
async def opened(url: str, *headers: tuple[bytes, bytes]) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A trio-websocket client whose stream is closed here: by itself it forgets to when the server ends it."""
    port, _, resource = url.removeprefix("ws://127.0.0.1:").partition("/")
    stream = await trio.open_tcp_stream("127.0.0.1", int(port))
    try:
        async with trio.open_nursery() as nursery:
            client = await trio_websocket.wrap_client_stream(
                nursery, stream, "chat.test", "/" + resource, extra_headers=list(headers)
            )
            async with client:
                yield client
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


def command(command_id: int, method: str, **params: object) -> str:
    return msgspec.json.encode({"id": command_id, "method": method, "params": params}).decode()


async def test_websockets_speaks_with_it() -> None:
    async with served() as (world, url):
        async with connect(f"{url}?token=alice", subprotocols=["secureconnect.v1"], max_size=None) as client:  # type: ignore[list-item]  # a NewType
            assert client.subprotocol == "secureconnect.v1"
            assert client.protocol.extensions == [], "compression is offered by this client and not negotiated"
            assert msgspec.json.decode(await client.recv())["event"] == "hello"
            await client.send(command(1, "subscribe", channels=["conversation:a"]))
            assert msgspec.json.decode(await client.recv())["id"] == 1
            world.post("a", {"text": "é" * 40_000})
            assert msgspec.json.decode(await client.recv())["data"] == {"text": "é" * 40_000}
            await client.send([command(2, "echo", text="frag")[:20], command(2, "echo", text="frag")[20:]])
            assert msgspec.json.decode(await client.recv())["result"] == {"text": "frag", "user": "alice"}
            with trio.fail_after(5):
                await (await client.ping()).wait()
        assert client.close_code == 1000


async def test_websockets_sees_why_it_was_closed() -> None:
    async with served(GatewayLimits(message_bytes_max=1000)) as (world, url):
        async with connect(url, additional_headers={"Authorization": "Bearer alice"}) as client:
            await client.recv()
            await client.send("x" * 1001)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "too_big")
        async with connect(f"{url}?token=bob") as client:
            await client.recv()
            world.end_session("bob")
            assert msgspec.json.decode(await client.recv())["event"] == "session.ended"
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token_revoked")


async def test_trio_websocket_speaks_with_it() -> None:
    async with served() as (world, url):
        async with opened(url) as client:
            await client.send_message(command(0, "auth", token="alice"))
            assert msgspec.json.decode(await client.get_message())["event"] == "hello"
            assert msgspec.json.decode(await client.get_message())["id"] == 0
            await client.send_message(command(1, "subscribe", channels="all"))
            await client.get_message()
            await client.ping(b"are you there")
            for _ in range(300):
                world.post("a")
            got: list[Any] = [msgspec.json.decode(await client.get_message())["sequence"] for _ in range(300)]
            assert got == list(range(1, 301))
        assert client.closed is not None
        assert client.closed.code == 1000


async def test_trio_websocket_is_told_of_a_drain() -> None:
    async with served() as (world, url), opened(url, (b"Authorization", b"Bearer alice")) as client:
        await client.get_message()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.gateway.drain, 1)
            assert msgspec.json.decode(await client.get_message())["event"] == "drain"
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await client.get_message()
        assert closed.value.reason is not None
        assert (closed.value.reason.code, closed.value.reason.reason) == (1012, "drain")


def handshake(token: str) -> bytes:
    return (
        f"GET /v1/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[trio.SocketStream]:
    stream = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    async with stream:
        yield stream


async def test_frames_sent_with_the_handshake_are_not_lost() -> None:
    """A client need not wait for the 101 to send its first frame."""
    async with served() as (_, url), raw(url) as stream:
        payload = command(7, "echo", text="early").encode()
        await stream.send_all(handshake("alice") + bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        got = b""
        while b"early" not in got:
            got += await stream.receive_some(4096)
        assert got.index(b"101 Switching") < got.index(b'"hello"') < got.index(b'"early"')


async def test_a_refusal_arrives_whole_also_when_the_peer_sent_more_than_was_read() -> None:
    """Closing over unread bytes would be a reset, and the answer would be lost with it."""
    async with served() as (_, url), raw(url) as stream:
        await stream.send_all(handshake("0") + b"x" * 100_000)
        got = b""
        while chunk := await stream.receive_some(4096):
            got += chunk
        assert got.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert msgspec.json.decode(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "UNAUTHORIZED"
