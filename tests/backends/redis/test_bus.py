"""The bus over a real Redis: many topics, losses of every kind, and two hubs that live with them. See contract/test_bus.py."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from tests.services.redis import RedisServer

from secureconnect.backends.redis import bus as bus_module
from secureconnect.backends.redis.bus import Limits, RedisBus
from secureconnect.backends.redis.connection import Limits as ConnectionLimits
from secureconnect.backends.redis.link import Link
from secureconnect.hub import BusAway, Frame, Hub, Peer
from secureconnect.hub.testing import MemorySource, MemoryTable, RecordingSink

pytestmark = [pytest.mark.anyio, pytest.mark.service]

ROOM, USER = "room:1", "user:1"
PATIENCE_S = 20.0


@asynccontextmanager
async def open_bus(
    server: RedisServer, *, database: int = 0, limits: Limits | None = None, connection: ConnectionLimits | None = None
) -> AsyncIterator[RedisBus]:
    link = Link(replace(server.address, database=database), "publish", random=random.random, limits=connection)
    async with anyio.create_task_group() as tasks:
        await tasks.start(link.run)
        yield RedisBus(link, limits=limits or Limits())
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what a server does sets no event of ours
            await anyio.sleep(0.01)


# -- the bus alone


async def test_ten_thousand_topics_are_listened_to_in_chunks(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = [f"channel/{n}" for n in range(10_000)]
    async with open_bus(redis_server) as bus, bus.subscribe() as link:
        with anyio.fail_after(PATIENCE_S):
            before = _calls(redis_server, "subscribe")
            await link.listen(topics)
            assert _calls(redis_server, "subscribe") - before == len(topics) // bus_module.CHUNK
            for n in (0, 999, 1_000, 9_999):
                await bus.publish(topics[n], b"%d" % n)
            assert [await link.receive() for _ in range(4)] == [(topics[n], b"%d" % n) for n in (0, 999, 1_000, 9_999)]
            await link.unlisten(topics[1:])
        assert redis_server.ask("PUBSUB CHANNELS") == [b"secureconnect/0/channel/0"]


def _calls(server: RedisServer, command: str) -> int:
    stats = server.ask("INFO", "commandstats")
    assert isinstance(stats, dict)
    calls: int = stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return calls


async def test_two_installations_on_one_server_do_not_hear_each_other(redis_server: RedisServer) -> None:
    async with open_bus(redis_server) as bus, open_bus(redis_server, database=1) as other, bus.subscribe() as link:
        with anyio.fail_after(5):
            await link.listen(["x"])
            await other.publish("x", b"theirs")
            await bus.publish("x", b"ours")
            assert await link.receive() == ("x", b"ours")


async def test_a_listen_that_was_given_up_shifts_nothing(redis_server: RedisServer) -> None:
    async with open_bus(redis_server, connection=ConnectionLimits(answer_s=60)) as bus, bus.subscribe() as link:
        with redis_server.frozen():
            for n in range(20):
                with anyio.move_on_after(0.01) as scope:
                    await link.listen([f"x{n}", f"y{n}"])
                assert scope.cancelled_caught
        with anyio.fail_after(5):
            await link.listen(["x"])
            await bus.publish("x", b"1")
            assert await link.receive() == ("x", b"1")


async def test_a_frozen_server_is_told_to_a_subscriber_who_only_receives(redis_server: RedisServer) -> None:
    async with open_bus(redis_server) as bus, bus.subscribe() as link:
        await link.listen(["x"])
        with redis_server.frozen(), anyio.fail_after(5):
            with pytest.raises(BusAway, match="no answer within"):
                await link.receive()
            with pytest.raises(BusAway):
                await bus.publish("x", b"1")
            with pytest.raises(BusAway):
                async with bus.subscribe():
                    pytest.fail("there is no link to a frozen server")


async def test_what_arrived_before_the_cut_is_handed_over_and_then_the_cut_is_told(redis_server: RedisServer) -> None:
    async with open_bus(redis_server) as bus, bus.subscribe() as link:
        await link.listen(["x"])
        for n in range(3):
            await bus.publish("x", b"%d" % n)
        await until(lambda: link._inbox.waiting == 3)
        redis_server.kill()
        with anyio.fail_after(5):
            assert [await link.receive() for _ in range(3)] == [("x", b"0"), ("x", b"1"), ("x", b"2")]
            with pytest.raises(BusAway):
                await link.receive()


@pytest.mark.parametrize("limits", [Limits(messages_max=10), Limits(bytes_max=100)], ids=["count", "bytes"])
async def test_a_hub_that_does_not_keep_up_is_cut_and_told_and_keeps_no_heap(redis_server: RedisServer, limits: Limits) -> None:
    async with open_bus(redis_server, limits=limits) as bus, bus.subscribe() as link:
        await link.listen(["x"])
        for _ in range(50):
            await bus.publish("x", b"x" * 20)
        with anyio.fail_after(5):
            await link._connection.lost.wait()
            assert link._inbox.waiting == 0
            with pytest.raises(BusAway, match="keep up"):
                await link.receive()


async def test_a_server_without_room_still_carries_messages(redis_server: RedisServer) -> None:
    async with open_bus(redis_server) as bus, bus.subscribe() as link:
        await link.listen(["x"])
        redis_server.ask("CONFIG", "SET", "maxmemory", 1)
        with anyio.fail_after(5):
            await bus.publish("x", b"1")
            assert await link.receive() == ("x", b"1")


# -- two hubs


class World:
    """Two nodes, `a` and `b`, their common log, and who listens at `b`."""

    def __init__(self, server: RedisServer, table: MemoryTable | None) -> None:
        self.server, self.table = server, table
        self.source = MemorySource()
        self.hubs: list[Hub] = []
        self.buses: list[RedisBus] = []
        self.log, self.history, self.own = RecordingSink(), RecordingSink(), RecordingSink()

    async def join(self, hub: Hub, sink: RecordingSink, channel: str) -> Peer:
        peer = hub.connect(sink)
        await peer.prepare(channel)
        peer.start([channel])
        return peer

    def say(self) -> None:
        self.hubs[0].commit(ROOM, self.source.append(ROOM, b"x"))

    async def arrives(self, count: int) -> None:
        """At `b`: everything, once, in order."""
        with anyio.fail_after(PATIENCE_S):
            await self.log.wait_frames(count)
        assert self.log.numbers(ROOM) == list(range(1, count + 1))
        assert self.log.events(ROOM) == ["said"] * count, "a log has no gap to tell"

    async def linked(self) -> None:
        """Both nodes speak and hear again: what `a` says in a history arrives at `b`."""
        await until(lambda: all(hub.statistics().bus_connected for hub in self.hubs))
        await until(lambda: all(bus._publisher.is_connected for bus in self.buses))
        before = len(self.history.frames)
        with anyio.fail_after(PATIENCE_S):
            while len(self.history.frames) == before or self.history.frames[-1].event != "ping":
                self.hubs[0].publish(USER, "ping", b"{}")
                await anyio.sleep(0.05)


@pytest.fixture(params=[True, False], ids=["table", "no table"])
def table(request: pytest.FixtureRequest) -> MemoryTable | None:
    return MemoryTable() if request.param else None


@asynccontextmanager
async def open_world(server: RedisServer, table: MemoryTable | None) -> AsyncIterator[World]:
    world = World(server, table)
    async with open_bus(server) as first, open_bus(server) as second, anyio.create_task_group() as tasks:
        for name, bus in zip("ab", (first, second), strict=True):
            hub = Hub(node=name, random=random.random, sources={"room:": world.source}, bus=bus, digests=table, epoch=1)
            await tasks.start(hub.run)
            world.hubs.append(hub)
            world.buses.append(bus)
        await world.join(world.hubs[0], world.own, USER)
        await world.join(world.hubs[1], world.log, ROOM)
        await world.join(world.hubs[1], world.history, USER)
        await world.linked()
        yield world
        tasks.cancel_scope.cancel()


async def test_in_health_everything_crosses_once_in_order(redis_server: RedisServer) -> None:
    async with open_world(redis_server, None) as world:
        signals: list[bytes] = []
        world.hubs[1].on_signal("x", signals.append)
        for n in range(1, 101):
            world.say()
            if n % 10 == 0:
                await world.arrives(n)
        world.hubs[0].send(USER, Frame(b"t", USER, "typing"))
        position = world.hubs[0].publish(USER, "call.ringing", b'{"n":1}')
        world.hubs[0].signal("x", b"1")
        await until(lambda: world.history.events(USER)[-2:] == ["typing", "call.ringing"] and bool(signals))
        assert world.own.positions[-1] == position
        assert signals == [b"1"]


def freeze(server: RedisServer) -> None:
    server.freeze()


def kill(server: RedisServer) -> None:
    server.kill()


def heal(server: RedisServer) -> None:
    server.clean()


@pytest.mark.parametrize("use", ["subscribe", "publish"])
async def test_a_cut_connection_loses_nothing_of_a_log(redis_server: RedisServer, table: MemoryTable | None, use: str) -> None:
    async with open_world(redis_server, table) as world:
        for n in range(1, 21):
            if n % 5 == 0:
                redis_server.cut(use)
            world.say()
        await world.arrives(20)
        await world.linked()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [freeze, kill])
async def test_an_outage_loses_nothing_of_a_log_and_says_what_a_history_may_have_lost(
    redis_server: RedisServer, table: MemoryTable | None, fault: Callable[[RedisServer], None]
) -> None:
    async with open_world(redis_server, table) as world:
        fault(redis_server)
        for n in range(1, 31):
            world.say()
            world.hubs[0].publish(USER, "call.ringing", b'{"n":%d}' % n)
            await anyio.sleep(0.1)
        if table is not None:
            await world.arrives(30)  # by the table alone, while there is no bus
        heal(redis_server)
        await world.arrives(30)
        await until(lambda: "gap" in world.history.events(USER))
        gap = next(frame for frame in world.history.frames if frame.event == "gap")
        assert json.loads(gap.payload)["data"]["cause"] == "bus"
        await world.linked()
        world.say()
        await world.arrives(31)
        assert redis_server.connections("publish") != []
        assert len(redis_server.connections("subscribe")) == 2


async def test_a_subscriber_that_was_cut_tells_the_gap_and_goes_on(redis_server: RedisServer) -> None:
    async with open_world(redis_server, None) as world:
        position = world.history.positions[-1]
        redis_server.cut("subscribe")
        await until(lambda: "gap" in world.history.events(USER))
        assert not (await world.hubs[1].connect(RecordingSink()).prepare(USER, after=str(position))).recovered
        await world.linked()


@pytest.mark.slow
async def test_ten_thousand_channels_are_heard_again_after_a_restart(redis_server: RedisServer) -> None:
    async with open_world(redis_server, None) as world:
        sink = RecordingSink()
        peer = world.hubs[1].connect(sink)
        channels = [f"user:{n}" for n in range(2, 10_002)]
        for channel in channels:
            await peer.prepare(channel)
        peer.start(channels)
        redis_server.restart()
        await until(lambda: len(_topics(redis_server)) == len(channels) + 3)
        await until(lambda: sink.events(channels[-1]) == ["gap"])
        with anyio.fail_after(PATIENCE_S):
            while "ping" not in sink.events(channels[-1]):
                world.hubs[0].publish(channels[-1], "ping", b"{}")
                await anyio.sleep(0.05)


def _topics(server: RedisServer) -> list[bytes]:
    topics = server.ask("PUBSUB CHANNELS")
    assert isinstance(topics, list)
    return topics
