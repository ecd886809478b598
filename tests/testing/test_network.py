"""The connection in memory behaves as the kernel's does where it hurts."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.testing.network import MemoryListener, MemoryTransport, memory_pair


async def test_bytes_arrive_at_once_and_in_order() -> None:
    a, b = memory_pair(client="one:1", server="two:2")
    assert (a.peer, b.peer) == ("two:2", "one:1")
    assert a.send_now(b"hello ") == 6
    assert a.send_now(memoryview(b"world")) == 5
    assert await b.receive(4) == b"hell"
    assert await b.receive(100) == b"o world"
    assert (a.unsent_bytes, b.unread_bytes) == (0, 0)


async def test_a_full_window_takes_nothing_until_the_peer_reads() -> None:
    a, b = memory_pair(window_bytes=10)
    assert a.send_now(b"x" * 7) == 7
    assert a.send_now(b"y" * 7) == 3
    with pytest.raises(BlockingIOError):
        a.send_now(b"z")
    assert a.send_now(b"") == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.wait_writable)
        await wait_all_tasks_blocked()
        assert await b.receive(2) == b"xx"
    assert a.send_now(b"zzz") == 2


async def test_short_writes_can_be_forced() -> None:
    a, b = memory_pair(most_per_send=3)
    assert a.send_now(b"hello") == 3
    assert await b.receive(100) == b"hel"


async def test_half_a_close_ends_one_direction_only() -> None:
    a, b = memory_pair()
    a.send_now(b"last")
    a.send_eof()
    a.send_eof()
    assert b.peer_ended
    assert [await b.receive(100) for _ in range(3)] == [b"last", b"", b""]
    with pytest.raises(BrokenPipeError):
        a.send_now(b"more")
    b.send_now(b"answer")
    assert await a.receive(100) == b"answer"


async def test_an_end_without_unread_bytes_is_orderly() -> None:
    a, b = memory_pair()
    a.send_now(b"bye")
    a.abort()
    a.abort()
    assert [await b.receive(100), await b.receive(100)] == [b"bye", b""]
    with pytest.raises(OSError, match="closed"):
        b.send_now(b"x")
    with pytest.raises(ConnectionAbortedError):
        await a.receive(1)
    with pytest.raises(BrokenPipeError):
        a.send_now(b"x")


async def test_an_end_over_unread_bytes_is_a_reset_that_destroys_what_was_said() -> None:
    a, b = memory_pair()
    b.send_now(b"unread")
    a.send_now(b"my last word")
    a.abort()
    with pytest.raises(ConnectionResetError):
        await b.receive(100)
    with pytest.raises(ConnectionResetError):
        b.send_now(b"x")


@pytest.mark.parametrize("who", ["own", "peer"])
async def test_an_abort_wakes_whoever_waits(who: str) -> None:
    a, b = memory_pair(window_bytes=1)
    a.send_now(b"x")
    woken: list[str] = []

    async def writer() -> None:
        with pytest.raises(OSError, match="closed"):
            await a.wait_writable()
        woken.append("writer")

    async def reader() -> None:
        with suppress(OSError):
            assert await a.receive(1) == b""
        woken.append("reader")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer)
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        (a if who == "own" else b).abort()
    assert sorted(woken) == ["reader", "writer"]


async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock) -> None:
    a, b = memory_pair(window_bytes=1)
    with trio.move_on_after(1):
        await b.receive(1)
    a.send_now(b"x")
    with trio.move_on_after(1):
        await a.wait_writable()
    assert await b.receive(1) == b"x"
    await a.wait_writable()


async def test_one_task_receives_and_one_waits_to_write() -> None:
    a, _ = memory_pair(window_bytes=1)
    a.send_now(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.receive, 1)
        nursery.start_soon(a.wait_writable)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await a.receive(1)
        with pytest.raises(trio.BusyResourceError):
            await a.wait_writable()
        nursery.cancel_scope.cancel()


async def test_a_listener_hands_over_connections_in_order_until_it_is_closed() -> None:
    listener = MemoryListener()
    first, second = listener.connect(), listener.connect()
    taken = [await listener.accept(), await listener.accept()]
    assert taken[0].peer != taken[1].peer
    first.send_now(b"1")
    assert await taken[0].receive(1) == b"1"
    taken[1].send_now(b"2")
    assert await second.receive(1) == b"2"
    got: list[MemoryTransport] = []

    async def accept() -> None:
        got.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        listener.connect()
    assert len(got) == 1


async def test_a_closed_listener_refuses_and_lets_nobody_hang() -> None:
    listener = MemoryListener()
    waiting = listener.connect()

    listener.close()
    with pytest.raises(OSError, match="closed"):
        await listener.accept()
    with pytest.raises(ConnectionRefusedError):
        listener.connect()
    assert await waiting.receive(1) == b""
