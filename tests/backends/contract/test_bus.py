"""The hub's bus: what every implementation must do, on both event loops."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from tests.services.redis import RedisServer

from secureconnect.backends.redis.bus import RedisBus
from secureconnect.backends.redis.link import Link
from secureconnect.hub import Bus, BusAway, MemoryBus

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Place:
    """Where the buses of a test's nodes meet."""

    def __init__(self, server: RedisServer | None) -> None:
        self._server, self._memory = server, MemoryBus()

    @asynccontextmanager
    async def bus(self) -> AsyncIterator[Bus]:
        """One node's way to it."""
        if self._server is None:
            yield self._memory
            return
        link = Link(self._server.address, "publish", random=random.random)
        async with anyio.create_task_group() as tasks:
            await tasks.start(link.run)
            yield RedisBus(link)
            tasks.cancel_scope.cancel()

    def cut(self) -> None:
        """End every subscriber's link."""
        if self._server is None:
            self._memory.cut()
        else:
            self._server.cut("subscribe")


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.service)])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(None if request.param == "memory" else request.getfixturevalue("redis_server"))


async def test_a_message_reaches_every_link_that_listens_to_its_topic_the_own_too(place: Place) -> None:
    with anyio.fail_after(5):
        async with place.bus() as bus, place.bus() as other, bus.subscribe() as first, other.subscribe() as second:
            await first.listen(["x", "y"])
            await second.listen(["y"])
            await bus.publish("x", b"1")
            await bus.publish("y", b"2")
            assert [await first.receive(), await first.receive()] == [("x", b"1"), ("y", b"2")]
            assert await second.receive() == ("y", b"2")
            await first.unlisten(["x", "unknown"])
            await bus.publish("x", b"3")
            await bus.publish("y", b"4")
            assert await first.receive() == ("y", b"4")


async def test_what_is_published_after_listen_returned_arrives_in_order_whatever_its_bytes(place: Place) -> None:
    with anyio.fail_after(5):
        async with place.bus() as bus, bus.subscribe() as link:
            topic = "channel/room:äöü \r\n*"
            await link.listen(["before", topic])
            for n in range(300):
                await bus.publish(topic, b"\x00\r\n%d" % n)
            assert [await link.receive() for _ in range(300)] == [(topic, b"\x00\r\n%d" % n) for n in range(300)]


async def test_listening_twice_hears_once_and_to_nothing_does_nothing(place: Place) -> None:
    with anyio.fail_after(5):
        async with place.bus() as bus, bus.subscribe() as link:
            await link.listen([])
            await link.unlisten([])
            await link.listen(["x", "x"])
            await link.listen(["x"])
            await bus.publish("x", b"1")
            await bus.publish("x", b"2")
            assert [await link.receive(), await link.receive()] == [("x", b"1"), ("x", b"2")]


async def test_a_link_may_listen_while_another_task_receives(place: Place) -> None:
    got: list[tuple[str, bytes]] = []
    with anyio.fail_after(5):
        async with place.bus() as bus, bus.subscribe() as link, anyio.create_task_group() as tasks:

            async def receive() -> None:
                got.append(await link.receive())

            tasks.start_soon(receive)
            await anyio.lowlevel.checkpoint()
            await link.listen(["x"])
            await bus.publish("x", b"1")
    assert got == [("x", b"1")]


async def test_with_a_second_hub_it_is_not_alone(place: Place) -> None:
    async with place.bus() as bus, bus.subscribe(), place.bus() as other, other.subscribe():
        assert not bus.alone
        assert not other.alone


async def test_a_cut_ends_every_link_for_good_and_a_new_one_hears_again(place: Place) -> None:
    with anyio.fail_after(5):
        async with place.bus() as bus:
            async with bus.subscribe() as link:
                await link.listen(["x"])
                place.cut()
                with pytest.raises(BusAway):
                    await link.receive()
                with pytest.raises(BusAway):
                    await link.listen(["y"])
                with pytest.raises(BusAway):
                    await link.receive()
            async with bus.subscribe() as link:
                await link.listen(["x"])
                await bus.publish("x", b"1")
                assert await link.receive() == ("x", b"1")


async def test_leaving_the_block_is_the_end_of_listening(place: Place) -> None:
    with anyio.fail_after(5):
        async with place.bus() as bus:
            async with bus.subscribe() as link:
                await link.listen(["x"])
            with pytest.raises(BusAway):
                await link.receive()


async def test_what_the_block_raises_comes_out_as_it_is(place: Place) -> None:
    async with place.bus() as bus:
        with pytest.raises(KeyError):
            async with bus.subscribe():
                raise KeyError
