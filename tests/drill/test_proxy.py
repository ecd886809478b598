"""The proxy alone, before an echo: each verb does what its name says, and healing undoes it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
import trio.testing

from secureconnect.drill.proxy import DOWN, UP, FaultProxy

HUNG_S = 0.2
"""Nothing came for so long: it is held. The opposite is never timed."""


async def echo(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)


@pytest.fixture
async def line(nursery: trio.Nursery) -> AsyncIterator[FaultProxy]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, echo, listeners)
    async with FaultProxy("127.0.0.1", listeners[0].socket.getsockname()[1]) as proxy:
        yield proxy


_opened: list[trio.SocketStream] = []


@pytest.fixture(autouse=True)
async def _close() -> AsyncIterator[None]:
    yield
    while _opened:
        await trio.aclose_forcefully(_opened.pop())


async def connect(line: FaultProxy) -> trio.SocketStream:
    _opened.append(await trio.open_tcp_stream("127.0.0.1", line.port))
    return _opened[-1]


async def ask(stream: trio.SocketStream, data: bytes = b"hello") -> bytes:
    await stream.send_all(data)
    return await answer(stream, len(data))


async def answer(stream: trio.SocketStream, size: int = 5) -> bytes:
    got = b""
    with trio.fail_after(10):
        while len(got) < size:
            more = await stream.receive_some(65_536)
            if not more:
                break
            got += more
    return got


async def is_silent(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(HUNG_S) as scope:
        await stream.receive_some(1)
    return scope.cancelled_caught


async def test_it_forwards_both_ways_and_hands_the_end_on(line: FaultProxy) -> None:
    stream = await connect(line)
    big = bytes(range(256)) * 4096
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, big)
        assert await answer(stream, len(big)) == big
    await stream.send_eof()
    assert await answer(stream, 1) == b""
    assert line.ways[UP].moved_bytes == line.ways[DOWN].moved_bytes == len(big)


async def test_latency_delays_each_chunk_and_keeps_them_flowing(line: FaultProxy) -> None:
    stream = await connect(line)
    await ask(stream)
    line.slow(0.3)
    began = trio.current_time()
    await stream.send_all(b"hello")
    assert await answer(stream) == b"hello"
    assert trio.current_time() - began >= 0.3
    await line.heal()
    assert await ask(stream) == b"hello"


async def test_a_slow_line_takes_the_time_that_its_bytes_need(line: FaultProxy) -> None:
    stream = await connect(line)
    await ask(stream)
    line.slow(0.0, bytes_per_s=10_000)
    began = trio.current_time()
    for _ in range(3):
        await ask(stream, b"x" * 1_000)
    assert trio.current_time() - began >= 0.2, "the pause after the last chunk is nobody's wait"


@pytest.mark.parametrize("directions", [(), (UP,), (DOWN,)], ids=["both", "up", "down"])
async def test_in_a_blackhole_nothing_comes_until_it_is_healed_and_then_everything(
    line: FaultProxy, directions: tuple[str, ...]
) -> None:
    stream = await connect(line)
    await ask(stream)
    moved = line.ways[UP].moved_bytes
    line.blackhole(*directions)
    await stream.send_all(b"hello")
    assert await is_silent(stream)
    assert line.ways[UP].moved_bytes == (moved + 5 if directions == (DOWN,) else moved)
    await line.heal()
    assert await answer(stream) == b"hello"


async def test_one_link_can_be_broken_alone(line: FaultProxy) -> None:
    lost, well = await connect(line), await connect(line)
    await ask(lost)
    await ask(well)
    line.links[1].blackhole()
    await lost.send_all(b"hello")
    assert await is_silent(lost)
    assert await ask(well) == b"hello"
    line.links[1].reset()
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
        await lost.receive_some(1)
    assert await ask(well) == b"hello"


async def test_a_reset_ends_present_connections_and_no_later_ones(line: FaultProxy) -> None:
    stream = await connect(line)
    await ask(stream)
    line.reset()
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
        await stream.receive_some(1)
    assert await ask(await connect(line)) == b"hello"
    await trio.testing.wait_all_tasks_blocked()
    assert list(line.links) == [2]


async def test_refused_is_who_connects_and_healed_it_is_the_same_port(line: FaultProxy) -> None:
    stream, port = await connect(line), line.port
    await ask(stream)
    line.refuse()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match=r"connect|refused"):
        await connect(line)
    assert await ask(stream) == b"hello", "who was there goes on"
    await line.heal()
    assert line.port == port
    assert await ask(await connect(line)) == b"hello"


async def test_muted_it_accepts_and_never_answers(line: FaultProxy) -> None:
    before = await connect(line)
    await ask(before)
    line.mute()
    stream = await connect(line)
    await stream.send_all(b"hello")
    assert await is_silent(stream)
    assert await ask(before) == b"hello"
    await line.heal()
    assert await answer(stream) == b"hello"


async def test_without_a_server_behind_it_the_connection_is_torn() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with FaultProxy("127.0.0.1", port) as line:
        stream = await connect(line)
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(10):
            await stream.receive_some(1)
