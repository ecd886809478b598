"""The network in virtual time loses, delays and cuts as a real one does, and tells nobody more than the kernel would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from secureconnect.testing.determinism import simulate
from secureconnect.testing.simulated_network import SIP_S, UNACKNOWLEDGED_S, SimulatedNetwork, SimulatedTransport
from secureconnect.testing.world import World

Ends = Callable[[SimulatedNetwork, SimulatedTransport, SimulatedTransport], Awaitable[None]]


def on_a_connection(test: Ends, *, window_bytes: int = 1_000, cut_short: float = 0.0) -> None:
    """Run `test` with the two ends of one connection between `client` and `server`."""
    world = World(1)

    async def main(world: World) -> None:
        net = SimulatedNetwork(world, window_bytes=window_bytes, cut_short=cut_short)
        listener = net.listen("server")
        near = await net.connect("client", "server")
        await test(net, near, await listener.accept())

    simulate(world, main)
    assert world.violations == []


async def everything(end: SimulatedTransport, size: int) -> list[bytes]:
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < size:
        pieces.append(await end.receive(65_536))
    return pieces


def test_bytes_arrive_later_in_order_and_in_any_pieces() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        sent = bytes(range(250))
        rest = memoryview(sent)
        while rest:
            rest = rest[near.send_now(rest) :]
        began_s = trio.current_time()
        pieces = await everything(far, len(sent))
        assert b"".join(pieces) == sent
        assert len(pieces) > 3
        assert trio.current_time() > began_s

    on_a_connection(test, cut_short=0.9)


def test_a_full_window_takes_nothing_until_the_peer_reads() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        assert near.send_now(b"x" * 20) == 10
        with pytest.raises(BlockingIOError):
            near.send_now(b"y")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.wait_writable)
            assert len(await far.receive(4)) == 4
        assert near.send_now(b"y" * 10) == 4

    on_a_connection(test, window_bytes=10)


def test_a_hole_holds_everything_back_and_tells_nobody() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        net.hole("client", "server")
        near.send_now(b"late")
        near.abort()
        with trio.move_on_after(1_000) as scope:
            await far.receive(10)
        assert scope.cancelled_caught
        net.heal("client", "server")
        assert [await far.receive(10), await far.receive(10)] == [b"late", b""]

    on_a_connection(test)


def test_who_vanishes_is_given_up_by_the_kernel_once_something_is_sent_to_it() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        near.vanish()
        with trio.move_on_after(1_000) as scope:
            await far.receive(10)
        assert scope.cancelled_caught, "nothing was sent, so nothing is noticed"
        began_s = trio.current_time()
        assert far.send_now(b"are you there?") == 14
        with pytest.raises(ConnectionResetError):
            await far.receive(10)
        assert trio.current_time() - began_s == pytest.approx(UNACKNOWLEDGED_S)
        with pytest.raises(BrokenPipeError):
            near.send_now(b"no")

    on_a_connection(test)


def test_a_slow_reader_takes_a_few_bytes_at_a_time() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        far.sip_bytes = 1
        near.send_now(b"abc")
        began_s = trio.current_time()
        assert [await far.receive(100) for _ in range(3)] == [b"a", b"b", b"c"]
        assert trio.current_time() - began_s >= 3 * SIP_S

    on_a_connection(test)


def test_a_reset_loses_what_was_on_its_way_and_an_end_does_not() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        near.send_now(b"lost")
        assert net.reset("client", "server") == 2
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                await end.receive(10)
        other = await net.connect("client", "server")
        other.send_now(b"kept")
        other.send_eof()
        accepted = await net._listeners["server"].accept()
        assert [await accepted.receive(10), await accepted.receive(10)] == [b"kept", b""]

    on_a_connection(test)


def test_a_process_that_is_killed_resets_its_connections_and_refuses_new_ones() -> None:
    async def test(net: SimulatedNetwork, near: SimulatedTransport, far: SimulatedTransport) -> None:
        net.kill("server")
        with pytest.raises(ConnectionResetError):
            await near.receive(10)
        with pytest.raises(ConnectionRefusedError):
            await net.connect("client", "server")
        assert net.open_at("server") == 0

    on_a_connection(test)
