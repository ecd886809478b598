"""The unreliable bus: what each of its faults does to what nodes hear, and what it tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from secureconnect.hub import BusAway
from secureconnect.testing.determinism import simulate
from secureconnect.testing.faulty_bus import BusAtNode, FaultyBus, FaultyLink
from secureconnect.testing.faulty_stores import Wire
from secureconnect.testing.world import World

TOPIC = "conversation:1"


def with_two_nodes(test: Callable[[FaultyBus, BusAtNode, FaultyLink], Awaitable[None]]) -> None:
    """Run `test` with the bus, as node `a` sees it, and the link of node `b` that listens."""
    world = World(1)

    async def main(world: World) -> None:
        bus = FaultyBus(world)
        bus.repeat = 0.0
        async with bus.port("b", Wire()).subscribe() as link:
            await link.listen([TOPIC])
            await test(bus, bus.port("a", Wire()), link)

    simulate(world, main)
    assert world.violations == []


async def heard(link: FaultyLink) -> list[bytes]:
    """What comes within a minute."""
    got: list[bytes] = []
    with trio.move_on_after(60):
        while True:
            got.append((await link.receive())[1])
    return got


def test_a_healthy_bus_brings_everything_once() -> None:
    async def test(bus: FaultyBus, a: BusAtNode, link: FaultyLink) -> None:
        for number in range(5):
            await a.publish(TOPIC, b"%d" % number)
        await a.publish("conversation:2", b"not for b")
        assert sorted(await heard(link)) == [b"0", b"1", b"2", b"3", b"4"]

    with_two_nodes(test)


@pytest.mark.parametrize("fault", ["drop", "dark", "deaf"])
def test_what_is_lost_without_a_word_is_lost_until_the_bus_is_healed(fault: str) -> None:
    async def test(bus: FaultyBus, a: BusAtNode, link: FaultyLink) -> None:
        if fault == "drop":
            bus.drop = 1.0
        elif fault == "dark":
            bus.dark["a"] = None
        else:
            bus.grow_deaf("b")
        assert not bus.is_well
        await a.publish(TOPIC, b"lost")
        assert await heard(link) == []
        bus.heal()
        if fault == "deaf":
            with pytest.raises(BusAway):
                await link.receive()
            return  # well again when the node has a new link
        assert bus.is_well
        await a.publish(TOPIC, b"there")
        assert await heard(link) == [b"there"]

    with_two_nodes(test)


def test_a_mute_node_hangs_and_a_bus_that_is_down_refuses() -> None:
    async def test(bus: FaultyBus, a: BusAtNode, link: FaultyLink) -> None:
        bus.mute["a"] = None
        with trio.move_on_after(100) as scope:
            await a.publish(TOPIC, b"stuck")
        assert scope.cancelled_caught
        bus.heal()
        bus.go_down()
        with pytest.raises(BusAway):
            await a.publish(TOPIC, b"refused")
        with pytest.raises(BusAway):
            await link.receive()

    with_two_nodes(test)
