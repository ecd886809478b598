"""The bus inside one process, on asyncio and trio."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

import secureconnect.hub.bus as bus_module
from secureconnect.hub import BusAway, MemoryBus

pytestmark = pytest.mark.anyio


async def test_a_message_reaches_every_link_that_listens_to_its_topic_the_own_too() -> None:
    bus = MemoryBus()
    with anyio.fail_after(5):
        async with bus.subscribe() as first, bus.subscribe() as second:
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


async def test_it_is_alone_until_a_second_hub_subscribes() -> None:
    bus = MemoryBus()
    async with bus.subscribe():
        assert bus.alone
    async with bus.subscribe():
        assert bus.alone, "the same hub again"
        async with bus.subscribe():
            assert not bus.alone
        assert not bus.alone, "who was there may come back"


async def test_a_receiver_waits_until_something_comes() -> None:
    bus = MemoryBus()
    got: list[tuple[str, bytes]] = []
    async with bus.subscribe() as link:
        await link.listen(["x"])

        async def receive() -> None:
            got.append(await link.receive())

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await checkpoint()
                await bus.publish("x", b"1")
    assert got == [("x", b"1")]


async def test_a_cut_ends_every_link_and_what_waited_is_lost() -> None:
    bus = MemoryBus()
    async with bus.subscribe() as link:
        await link.listen(["x"])
        await bus.publish("x", b"1")
        bus.cut()
        with pytest.raises(BusAway):
            await link.receive()
        with pytest.raises(BusAway):
            await link.listen(["y"])


async def test_a_node_that_is_too_late_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "LINK_MESSAGES_MAX", 2)
    bus = MemoryBus()
    async with bus.subscribe() as link:
        await link.listen(["x"])
        for _ in range(3):
            await bus.publish("x", b"1")
        with pytest.raises(BusAway):
            await link.receive()
