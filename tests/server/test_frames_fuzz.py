"""Ten thousand mutated frames, and peers of every bad kind: the gateway lives on, each connection is served or closed with a
proper code, nothing unexpected happens and nothing is left. In memory, under virtual time; the seed is in the test's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random

import msgspec
import pytest
import structlog
import trio
from tests.server.socket_kit import World, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.server.websocket import GatewayLimits
from secureconnect.testing.socket_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Ended, frame, masked

FRAMES = 10_000
FRAMES_PER_SOCKET = 2
AT_ONCE = 50
PROPER = {1000, 1001, 1002, 1003, 1005, 1007, 1008, 1009, 1012, 1013}
"""Close codes the server may answer bad bytes with; a mutated close frame may also bring one of its own, which is echoed."""
LIMITS = GatewayLimits(message_bytes_max=5000)

GOOD: Sequence[dict[str, object]] = [
    {"id": 1, "method": "echo", "params": {"text": "hello"}},
    {
        "id": "two",
        "method": "subscribe",
        "params": {"channels": ["conversation:a", "user:alice"], "after": {"conversation:a": 1}},
    },
    {"id": 3, "method": "subscribe", "params": {"channels": "all"}},
    {"id": 4, "method": "unsubscribe", "params": {"channels": ["conversation:a"]}},
    {"id": 5, "method": "typing", "params": {"conversation_id": "a", "is_typing": True}},
    {"id": 6, "method": "auth", "params": {"token": "alice"}},
    {"id": 7, "method": "wait.aside", "params": {"text": "open"}},
    {"method": "ping"},
]
ODD: Sequence[object] = [
    None, True, -1, 0, 2**64, 1e308, "", "\u0000", "x" * 4000, "é" * 1000, [], [[]], {}, {"a": {"b": []}}, ["all"], "all",
    "conversation:", "conversation:a,conversation:b", "user:", {"conversation:a": "x"}, {"": -1},
]  # fmt: skip


def mutated(rng: Random) -> bytes:
    """A frame that was good once."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(1, 300))
    data = bytearray(frame(*odd_frame(rng)))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[0] = rng.randrange(256)
        elif kind == 2:
            data[1:2] = rng.randbytes(1)
        elif kind == 3:
            del data[at:]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        data = data or bytearray(b"\x81")
    return bytes(data)


def odd_command(rng: Random) -> bytes:
    """A command with a part of it exchanged, as JSON that is sometimes cut."""
    command: dict[str, object] = dict(rng.choice(GOOD))
    for _ in range(rng.randrange(1, 3)):
        name = rng.choice(["id", "method", "params", "inside", "inside", "inside"])
        params = command.get("params")
        if name == "inside" and isinstance(params, dict) and params:
            command["params"] = {**params, rng.choice(list(params)): rng.choice(ODD)}
        elif name != "inside":
            command[name] = rng.choice(ODD)
    data = msgspec.json.encode(command)
    return data if rng.random() < 0.8 else data[: rng.randrange(len(data))]


def odd_frame(rng: Random) -> tuple[bytes, int]:
    opcode = rng.choice([TEXT, TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG])
    if opcode == TEXT:
        return msgspec.json.encode(rng.choice(GOOD)), TEXT
    if opcode == CLOSE:
        return rng.choice([b"", b"\x03", b"\x03\xe8", b"\x03\xe8bye", rng.randbytes(2), b"\x03\xe8\xff"]), CLOSE
    return rng.randbytes(rng.choice([0, 1, 125, 126, 4000])), opcode


async def one_socket(world: World, rng: Random, codes: Counter[int]) -> None:
    """Bad bytes in any slicing, then one of the ways to end; what the server made of it."""
    client = await world.connect()
    data = frame(odd_command(rng)) + mutated(rng)  # in this order: the second one is usually the last
    try:
        while data:
            cut = rng.choice([len(data), rng.randrange(1, len(data) + 1)])
            await client.send(data[:cut])
            data = data[cut:]
        ending = rng.randrange(4)
        if ending == 0:
            await client.close()
        elif ending == 1:
            client.transport.send_eof()
        elif ending == 2:
            client.transport.abort()
    except OSError:
        pass  # the server has ended it already
    codes[(await client.end()).code] += 1
    client.transport.abort()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20261124])
async def test_ten_thousand_mutated_frames_are_served_or_refused(seed: int, autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as lines:
        await fuzz(seed)
    told = {(line["event"], line.get("code")) for line in lines if line["event"] not in {"socket_closed", "sockets_closed"}}
    assert told <= {("refused", "REQUEST_TIMEOUT")}


async def fuzz(seed: int) -> None:
    async with open_world(LIMITS) as world:
        world.gates["open"] = trio.Event()
        world.gates["open"].set()
        await settle(world)
        baseline = trio.lowlevel.current_statistics().tasks_living
        rng, codes = Random(seed), Counter[int]()
        for _ in range(FRAMES // FRAMES_PER_SOCKET // AT_ONCE):
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(one_socket, world, Random(rng.random()), codes)
        assert {code for code in codes if not (code in PROPER or code == 1006 or 3000 <= code <= 4999)} == set()
        assert {1000, 1001, 1002, 1006, 1007, 1009} <= set(codes), "the mutations reach every kind of refusal"
        assert world.dispatcher.counters.requests > 1000, "and the operations"
        assert "result" in await (await world.connect()).call("echo"), "and it still serves"
        await settle(world)
        assert trio.lowlevel.current_statistics().tasks_living <= baseline
        assert world.dispatcher.counters.unexpected == 0
        assert world.gateway.counters.unexpected == 0


async def settle(world: World) -> None:
    """Until no socket is left."""
    await trio.sleep(100)
    await wait_all_tasks_blocked()
    assert world.gateway.sockets == 0


# -- peers that do not even need bad bytes


async def never_reads(world: World) -> None:
    client = await world.connect(window_bytes=500)
    while True:
        await client.say({"id": 1, "method": "echo", "params": {"text": "x" * 100}})
        await trio.sleep(0.01)  # a virtual clock stands still while anybody is busy


async def vanishes(world: World) -> None:
    """Half open: it is gone, and no packet says so."""
    client = await world.connect()
    await client.call("subscribe", channels="all")
    await trio.sleep_forever()


async def sends_a_byte_a_second(world: World) -> None:
    """Of a frame that never ends. Every byte counts as life, so it may stay; it costs what a silent one costs."""
    client = await world.connect()
    payload = frame(b"x" * 4000)
    with trio.move_on_after(120):
        for byte in payload:
            await client.send(bytes((byte,)))
            await trio.sleep(1)
    client.transport.abort()


async def reads_a_byte_a_second(world: World) -> None:
    client = await world.connect(window_bytes=100)
    await client.call("subscribe", channels="all")
    with trio.move_on_after(120):
        while True:
            await client.transport.receive(1)
            await trio.sleep(1)
    client.transport.abort()


async def stops_inside_a_frame(world: World) -> None:
    client = await world.connect()
    await client.send(b"\x81\xfe\x0f\xff" + masked(b"abcd"))
    await trio.sleep_forever()


async def stops_inside_a_message(world: World) -> None:
    client = await world.connect()
    await client.send(frame(b"half", fin=False))
    await trio.sleep_forever()


async def never_authenticates(world: World) -> None:
    client = world.begin()
    await client.upgraded()
    await trio.sleep_forever()


async def never_reads_its_refusal(world: World) -> None:
    world.begin("0", window_bytes=5)
    await trio.sleep_forever()


@pytest.mark.parametrize(
    "kind",
    [
        never_reads,
        vanishes,
        sends_a_byte_a_second,
        reads_a_byte_a_second,
        stops_inside_a_frame,
        stops_inside_a_message,
        never_authenticates,
        never_reads_its_refusal,
    ],
)
async def test_bad_peers_are_let_go_and_cost_nobody_else_anything(
    kind: Callable[[World], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        baseline = trio.lowlevel.current_statistics().tasks_living
        good = await world.connect("bob")
        await good.call("subscribe", channels="all")
        async with trio.open_nursery() as peers:
            for _ in range(10):
                peers.start_soon(_until_gone, kind, world)
            for n in range(1, 301):
                posted_s = trio.current_time()
                world.post("a", {"text": "x" * 200})
                event = await good.next_event()
                assert (event["sequence"], trio.current_time()) == (n, posted_s)
                await good.say({"method": "ping"})
                assert (await good.next_event())["event"] == "pong"
                await trio.sleep(0.5)
            peers.cancel_scope.cancel()
        assert world.gateway.sockets == 1
        await good.close()
        await good.end()
        good.transport.abort()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living <= baseline


async def _until_gone(kind: Callable[[World], Awaitable[None]], world: World) -> None:
    with suppress(OSError, Ended):
        await kind(world)
