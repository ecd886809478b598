"""Order and wholeness of every socket's bytes while everybody writes to it at once, on real sockets with small kernel buffers.

The pump's direct writes, its offers, replays, answers and pongs meet in front of sockets that take little, in sizes and at
moments that chance chooses. Each client checks every frame: nothing torn, nothing twice, nothing out of order, nothing missing.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import trio
from tests.server.socket_kit import World, open_world
from trio.testing import wait_all_tasks_blocked

from secureconnect.hub import Frame
from secureconnect.server.session import event
from secureconnect.server.transport import SocketTransport, open_listener
from secureconnect.server.websocket import GatewayLimits, HandshakeRequest
from secureconnect.testing.socket_client import CONTINUATION, KEY, PING, PONG, TEXT, SocketClient, frame

CLIENTS = 20
ROUNDS = 500
CHANNEL = "conversation:a"
LIMITS = GatewayLimits(outbox_bytes_max=300_000)


@dataclass
class Seen:
    """What one client sent and got."""

    pings: int = 0
    pongs: int = 0
    asked: int = 0
    answered: int = 0
    sequences: list[object] = field(default_factory=list)
    typings: int = 0


@asynccontextmanager
async def connected(world: World, port: int, nursery: trio.Nursery) -> AsyncIterator[SocketClient]:
    """A client over the kernel whose receive buffer is small."""
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    raw.setblocking(False)
    client = SocketClient(SocketTransport(raw, "client"))
    assert (await client.upgraded()).status == 101
    assert (await client.message())["event"] == "hello"
    try:
        yield client
    finally:
        client.transport.abort()


async def writes(client: SocketClient, seen: Seen, rng: Random, done: trio.Event) -> None:
    """Pings, commands whole, in fragments with a ping between them, and byte by byte."""
    while not done.is_set():
        deed, wanted = rng.random(), b'{"id":%d,"method":"echo","params":{"text":"%b"}}'
        if deed < 0.3:
            seen.pings += 1
            await client.send(frame(b"%d" % seen.pings, PING))
        else:
            seen.asked += 1
            command = wanted % (seen.asked, b"x" * rng.randrange(400))
            if deed < 0.6:
                await client.send(frame(command))
            elif deed < 0.8:
                cut = rng.randrange(len(command))
                seen.pings += 1
                await client.send(frame(command[:cut], fin=False))
                await client.send(frame(b"%d" % seen.pings, PING))
                await client.send(frame(command[cut:], CONTINUATION))
            else:
                whole, step = frame(command), rng.randrange(7, 60)
                for at in range(0, len(whole), step):
                    await client.send(whole[at : at + step])
        await trio.sleep(rng.random() * 0.02)


async def reads(client: SocketClient, seen: Seen, rng: Random, last: int) -> None:
    """Slowly, and everything is checked. Ends when the last event and every answer are there."""
    while not (seen.sequences and seen.sequences[-1] == last and seen.answered == seen.asked and seen.pongs == seen.pings):
        opcode, payload = await client.receive()
        if opcode == PONG:
            seen.pongs += 1
            assert payload == b"%d" % seen.pongs
            continue
        assert opcode == TEXT
        message: Any = client.decoded(payload)
        if "id" in message:
            seen.answered += 1
            assert (message["id"], set(message)) == (seen.answered, {"id", "result"})
        elif message["event"] == "typing":
            seen.typings += 1
        else:
            assert message["event"] == "message.created", message
            seen.sequences.append(message["sequence"])
        if rng.random() < 0.05:
            await trio.sleep(rng.random() * 0.1)


async def lives(world: World, port: int, seed: int, seen: Seen, ready: list[trio.Event], done: trio.Event) -> None:
    rng = Random(seed)
    async with trio.open_nursery() as nursery, connected(world, port, nursery) as client:
        answer: Any = await client.call("subscribe", channels=[CHANNEL])
        assert answer["result"]["channels"][CHANNEL]["sequence"] == 0
        seen.asked = seen.answered = 1
        client._last_id = 1
        ready[seed].set()
        nursery.start_soon(writes, client, seen, rng, done)
        await reads(client, seen, rng, ROUNDS)
        nursery.cancel_scope.cancel()


async def accepts(world: World, listener: Any, nursery: trio.Nursery) -> None:  # noqa: ANN401  # a SocketListener
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
        "authorization": "Bearer alice",
    }
    while True:
        try:
            transport = await listener.accept()
        except OSError:
            return  # closed at the end of the test
        transport._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        request = HandshakeRequest("GET", "/v1/ws", {}, headers, transport.peer, "1.1")
        nursery.start_soon(world.gateway.serve, request, transport, b"")


@pytest.mark.slow
async def test_every_byte_arrives_once_in_order_and_untorn() -> None:
    with trio.fail_after(60):
        async with open_world(LIMITS) as world:
            listener = open_listener("127.0.0.1", 0)
            world.nursery.start_soon(accepts, world, listener, world.nursery)
            seen = [Seen() for _ in range(CLIENTS)]
            ready, done = [trio.Event() for _ in range(CLIENTS)], trio.Event()
            async with trio.open_nursery() as clients:
                for n in range(CLIENTS):
                    clients.start_soon(lives, world, listener.port, n, seen[n], ready, done)
                for is_ready in ready:
                    await is_ready.wait()
                await broadcasts(world, Random(1))
                done.set()
            listener.close()
            for one in seen:
                assert one.sequences == list(range(1, ROUNDS + 1))
            assert world.hub.ledger.fell_behind > 0, "somebody's outbox was full, or this test proves less than it says"
            assert sum(one.pings for one in seen) > 100
            assert sum(one.typings for one in seen) > 100
            await wait_all_tasks_blocked()


async def broadcasts(world: World, rng: Random) -> None:
    """Entries of any size, ephemeral events between them, in bursts."""
    for n in range(ROUNDS):
        world.post("a", {"text": "z" * rng.randrange(8000)})
        if n % 3 == 0:
            world.hub.send(CHANNEL, Frame(event("typing", {"n": n}, channel=CHANNEL), CHANNEL, "typing"), coalesce="bob")
        if n % 3 == 0:
            await trio.sleep(0.005)
