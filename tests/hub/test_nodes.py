"""Several nodes on a bus that loses, cuts, goes deaf and away: everybody gets everything in time. Virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.hub import BusAway, Frame, Hub, Link, MemoryBus, Peer, Sink
from secureconnect.hub.testing import MemorySource, MemoryTable, RecordingSink

ROOM = "room:1"
USER = "user:1"


def run(
    main: Callable[[], Coroutine[object, object, object]], *, clock: object, instruments: Sequence[trio.abc.Instrument]
) -> object:
    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


pytestmark = pytest.mark.trio(run=run)


class FlakyLink:
    """Once deaf, deaf for ever: only a new link helps."""

    def __init__(self, link: Link, bus: FlakyBus) -> None:
        self._link, self._bus = link, bus
        self._was_deaf = False

    @property
    def is_deaf(self) -> bool:
        self._was_deaf = self._was_deaf or self._bus.is_deaf
        return self._was_deaf

    async def listen(self, topics: Iterable[str]) -> None:
        if self.is_deaf:
            await trio.sleep_forever()
        await self._link.listen(topics)

    async def unlisten(self, topics: Iterable[str]) -> None:
        await self._link.unlisten(topics)

    async def receive(self) -> tuple[str, bytes]:
        while True:
            topic, data = await self._link.receive()
            if not self.is_deaf:
                return topic, data


class FlakyBus:
    """One node's way to the bus."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.loses: Callable[[str], bool] = lambda topic: False
        self.is_down = self.is_deaf = self.hangs = False
        self.published = 0

    @property
    def alone(self) -> bool:
        return self.bus.alone

    async def publish(self, topic: str, data: bytes) -> None:
        if self.hangs:
            await trio.sleep_forever()
        if self.is_down:
            raise BusAway("down")
        self.published += 1
        if not self.loses(topic):
            await self.bus.publish(topic, data)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[FlakyLink]:
        if self.hangs:
            await trio.sleep_forever()
        if self.is_down:
            raise BusAway("down")
        async with self.bus.subscribe() as link:
            yield FlakyLink(link, self)


class Node:
    def __init__(self, name: str, world: World, epoch: int = 1) -> None:
        self.bus = FlakyBus(world.bus)
        self.hub = Hub(
            node=name, random=lambda: 0.5, sources={"room:": world.source}, bus=self.bus, digests=world.table, epoch=epoch
        )
        self.scope = trio.CancelScope()
        self.world = world

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            await self.hub.run(task_status=task_status)

    async def join(self, sink: Sink, channel: str = ROOM) -> Peer:
        peer = self.hub.connect(sink)
        await peer.prepare(channel)
        peer.start([channel])
        return peer

    def say(self, channel: str = ROOM) -> None:
        self.hub.commit(channel, self.world.source.append(channel, b"x"))


class World:
    """Two nodes and what they share. Both are past their first seconds, so that only what a test does explains what it sees."""

    def __init__(self, nursery: trio.Nursery, *, table: bool) -> None:
        self.bus, self.source = MemoryBus(), MemorySource()
        self.table = MemoryTable() if table else None
        self.nursery = nursery
        self.sink = RecordingSink()

    async def start(self, name: str, epoch: int = 1) -> Node:
        node = Node(name, self, epoch)
        await self.nursery.start(node.run)
        return node

    async def arrived(self, count: int, within_s: float) -> float:
        """How long it took."""
        began = trio.current_time()
        with trio.fail_after(within_s):
            await self.sink.wait_frames(count)
        assert self.sink.numbers(ROOM) == list(range(1, count + 1))
        return trio.current_time() - began


@pytest.fixture(params=[True, False], ids=["table", "no table"])
def with_table(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def world(nursery: trio.Nursery, with_table: bool) -> World:
    return World(nursery, table=with_table)


@pytest.fixture
async def nodes(world: World) -> list[Node]:
    """`a` says, `b` has the subscriber."""
    nodes = [await world.start("a"), await world.start("b")]
    await trio.sleep(1)
    await nodes[1].join(world.sink)
    await nodes[0].join(RecordingSink())
    await trio.sleep(15)
    world.source.calls.clear()
    if world.table is not None:
        world.table.reads = 0
    return nodes


async def test_in_health_everything_arrives_at_once_and_no_store_is_read(world: World, nodes: list[Node]) -> None:
    for n in range(1, 6):
        nodes[0].say()
        await world.arrived(n, within_s=0.1)
    await trio.sleep(20)
    assert world.source.calls == {}
    assert world.table is None or (world.table.reads == 0 and len(world.table.rows) > 60), "written always, never read"


async def test_ephemeral_events_histories_and_signals_cross_once(world: World, nodes: list[Node]) -> None:
    got: list[tuple[str, bytes]] = []
    nodes[0].hub.on_signal("x", lambda data: got.append(("a", data)))
    nodes[1].hub.on_signal("x", lambda data: got.append(("b", data)))
    own, other = RecordingSink(), RecordingSink()
    for node, sink in zip(nodes, (own, other), strict=True):
        await node.join(sink, USER)
    nodes[0].hub.send(USER, Frame(b"t", USER, "typing"), coalesce="ann")
    position = nodes[0].hub.publish(USER, "call.ringing", b'{"n":1}')
    nodes[0].hub.signal("x", b"1")
    await trio.sleep(10)
    assert [frame.event for frame in own.frames] == [frame.event for frame in other.frames] == ["typing", "call.ringing"]
    assert own.positions == [None, position]
    assert other.positions[1] != position, "each node gives its own positions"
    assert json.loads(other.frames[1].payload)["data"] == {"n": 1}
    assert got == [("a", b"1"), ("b", b"1")]


async def test_what_the_bus_lost_the_digest_finds(world: World, nodes: list[Node]) -> None:
    nodes[0].bus.loses = lambda topic: topic.startswith("channel/")
    for _ in range(3):
        nodes[0].say()
    await world.arrived(3, within_s=1.5)
    assert world.source.calls.keys() == {"read"}


async def test_four_lost_digests_lose_nothing(world: World, nodes: list[Node]) -> None:
    lost: list[str] = []

    def loses(topic: str) -> bool:
        lost.append(topic)
        return len(lost) <= 5

    nodes[0].bus.loses = loses
    nodes[0].say()
    await world.arrived(1, within_s=6.5)


async def test_many_lost_digests_are_noticed_by_silence_or_number(world: World, nodes: list[Node]) -> None:
    nodes[0].bus.loses = lambda topic: True
    nodes[0].say()
    await world.arrived(1, within_s=10)


@pytest.mark.parametrize("how", ["is_down", "hangs"])
@pytest.mark.parametrize("whose", [[0], [1], [0, 1]], ids=["the publisher's", "the subscriber's", "both"])
async def test_a_bus_that_is_away_only_delays(world: World, nodes: list[Node], how: str, whose: list[int]) -> None:
    for index in whose:
        setattr(nodes[index].bus, how, True)
    world.bus.cut()
    nodes[0].say()
    await world.arrived(1, within_s=10)
    for _ in range(5):
        await trio.sleep(3)
        nodes[0].say()
    await world.arrived(6, within_s=10)
    for node in nodes:
        setattr(node.bus, how, False)
    await trio.sleep(5)
    world.source.calls.clear()
    nodes[0].say()
    await world.arrived(7, within_s=0.1)


async def test_with_the_table_a_bus_that_is_away_costs_two_seconds(nursery: trio.Nursery) -> None:
    world = World(nursery, table=True)
    nodes = [await world.start("a"), await world.start("b")]
    await trio.sleep(1)
    await nodes[1].join(world.sink)
    for node in nodes:
        node.bus.is_down = True
    world.bus.cut()
    await trio.sleep(10)
    for n in range(1, 6):
        nodes[0].say()
        assert await world.arrived(n, within_s=2) > 0


async def test_a_node_that_is_deaf_without_knowing_makes_a_new_link(world: World, nodes: list[Node]) -> None:
    nodes[1].bus.is_deaf = True
    await trio.sleep(5)
    nodes[1].bus.is_deaf = False
    nodes[0].say()
    await world.arrived(1, within_s=10)
    await trio.sleep(5)
    nodes[0].say()
    await world.arrived(2, within_s=0.1)


async def test_bus_and_table_away_together_are_survived(world: World, nodes: list[Node]) -> None:
    if world.table is not None:
        world.table.is_away = True
    for node in nodes:
        node.bus.is_down = True
    world.bus.cut()
    await trio.sleep(1)
    nodes[0].say()
    await world.arrived(1, within_s=10)
    assert nodes[1].hub.statistics().sweeps_total > 1


async def test_what_a_node_stored_just_before_it_died_is_found(world: World, nodes: list[Node]) -> None:
    world.source.append(ROOM, b"stored, never said")
    nodes[0].scope.cancel()
    await world.arrived(1, within_s=10)


async def test_what_lands_after_the_death_of_its_node_is_found_too(world: World, nodes: list[Node]) -> None:
    nodes[0].scope.cancel()
    await trio.sleep(0.5)
    again = await world.start("a", epoch=2)
    await trio.sleep(4)
    world.source.append(ROOM, b"was still on its way")
    await world.arrived(1, within_s=13)
    assert again.hub.node == "a"


async def test_a_dead_node_is_forgotten_and_its_channels_no_longer_asked_for(world: World, nodes: list[Node]) -> None:
    nodes[0].scope.cancel()
    await trio.sleep(60)
    assert nodes[1].hub.statistics().others == {}
    world.source.calls.clear()
    await trio.sleep(30)
    assert world.source.calls == {}


async def test_a_cut_loses_nothing_of_a_log_and_says_what_a_history_may_have_lost(world: World, nodes: list[Node]) -> None:
    history = RecordingSink()
    await nodes[1].join(history, USER)
    await nodes[0].join(RecordingSink(), USER)
    await trio.sleep(1)
    nodes[1].bus.is_down = True
    world.bus.cut()
    await trio.sleep(1)
    nodes[0].say()
    nodes[0].hub.publish(USER, "call.ringing", b"{}")
    await trio.sleep(0.5)
    nodes[1].bus.is_down = False
    await world.arrived(1, within_s=5)
    await trio.sleep(3)
    assert [frame.event for frame in history.frames] == ["gap"]
    assert json.loads(history.frames[0].payload)["data"]["cause"] == "bus"
    place = await nodes[1].hub.connect(RecordingSink()).prepare(USER, after=str(history.positions[0]))
    assert place.recovered, "from behind the gap"
    assert world.sink.events(ROOM) == ["said"], "a log has no gap to tell"
    nodes[0].hub.publish(USER, "call.ringing", b"{}")
    await trio.sleep(0.1)
    assert [frame.event for frame in history.frames] == ["gap", "call.ringing"]


async def test_a_position_from_before_a_cut_is_refused(world: World, nodes: list[Node]) -> None:
    history = RecordingSink()
    await nodes[1].join(history, USER)
    nodes[1].hub.publish(USER, "x", b"{}")
    await trio.sleep(1)
    world.bus.cut()
    await trio.sleep(3)
    place = await nodes[1].hub.connect(RecordingSink()).prepare(USER, after=history.positions[0])
    assert not place.recovered


@pytest.mark.parametrize(("how", "longest_s"), [("is_down", 0.01), ("is_deaf", 0.6), ("hangs", 0.6)])
async def test_a_channel_opens_whatever_the_bus_does(world: World, nodes: list[Node], how: str, longest_s: float) -> None:
    setattr(nodes[1].bus, how, True)
    if how != "is_deaf":
        world.bus.cut()
        await trio.sleep(0.15)
    began = trio.current_time()
    await nodes[1].join(RecordingSink(), "room:new")
    assert trio.current_time() - began <= longest_s


async def test_a_bus_that_goes_away_while_a_channel_opens_keeps_it_no_longer(world: World, nodes: list[Node]) -> None:
    nodes[1].bus.is_deaf = True
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes[1].join, RecordingSink(), "room:new")
        await trio.sleep(0.1)
        nodes[1].bus.is_down = True
        world.bus.cut()
    assert trio.current_time() - began < 0.2


async def test_an_entry_that_comes_between_subscription_and_tail_is_not_lost(world: World, nodes: list[Node]) -> None:
    world.source.delay_s = 0.2
    sink = RecordingSink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes[1].join, sink, "room:new")
        await trio.sleep(0.1)
        nodes[0].say("room:new")
    await trio.sleep(5)
    nodes[0].say("room:new")
    await trio.sleep(5)
    assert sink.numbers("room:new") in ([1, 2], [2]), "the tail that it joined at, then everything"
    assert sink.numbers("room:new")[-1] == 2


async def test_a_signal_that_the_bus_lost_rides_in_the_digest(world: World, nodes: list[Node]) -> None:
    got: list[bytes] = []
    nodes[1].hub.on_signal("session.ended", got.append)
    lost: list[str] = []

    def loses(topic: str) -> bool:
        lost.append(topic)
        return len(lost) == 1

    nodes[0].bus.loses = loses
    nodes[0].hub.signal("session.ended", b"x")
    await trio.sleep(2)
    assert got == [b"x"]
    await trio.sleep(10)
    assert got == [b"x"], "once"


async def test_a_signal_reaches_a_deaf_node_by_the_table(nursery: trio.Nursery) -> None:
    world = World(nursery, table=True)
    nodes = [await world.start("a"), await world.start("b")]
    await trio.sleep(1)
    got: list[bytes] = []
    nodes[1].hub.on_signal("session.ended", got.append)
    nodes[1].bus.is_down = True
    world.bus.cut()
    await trio.sleep(5)
    nodes[0].hub.signal("session.ended", b"x")
    await trio.sleep(2)
    assert got == [b"x"]


async def test_without_any_bus_nodes_hear_of_each_other_by_the_table(nursery: trio.Nursery) -> None:
    source, table, sink = MemorySource(), MemoryTable(), RecordingSink()
    hubs = [Hub(node=name, random=lambda: 0.5, sources={"room:": source}, digests=table) for name in "ab"]
    for hub in hubs:
        await nursery.start(hub.run)
    got: list[bytes] = []
    hubs[1].on_signal("x", got.append)
    peer = hubs[1].connect(sink)
    await peer.prepare(ROOM)
    peer.start([ROOM])
    await trio.sleep(5)
    hubs[0].commit(ROOM, source.append(ROOM, b"x"))
    hubs[0].signal("x", b"1")
    await trio.sleep(2)
    assert sink.numbers(ROOM) == [1]
    assert got == [b"1"]


async def test_a_single_node_encodes_nothing_and_asks_for_nothing(nursery: trio.Nursery) -> None:
    source, bus, sink = MemorySource(), FlakyBus(MemoryBus()), RecordingSink()
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, bus=bus)
    await nursery.start(hub.run)
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    peer.start([ROOM])
    hub.commit(ROOM, source.append(ROOM, b"x"))
    hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    hub.signal("x", b"1")
    await trio.sleep(120)
    assert len(sink.frames) == 2
    assert bus.published == 0
    assert source.calls == {"read": 1, "heads": 1}, "the tail, and once for its own former life"


async def test_what_cannot_be_understood_is_counted_and_ignored(world: World, nodes: list[Node]) -> None:
    before = nodes[1].hub.statistics().bus_unknown_total
    for data in (b"", b"\x02\x01x\x90", b"\x01\x01x\xc1"):
        for topic in ("nodes", f"channel/{ROOM}"):
            await world.bus.publish(topic, data)
    await trio.sleep(0.1)
    if world.table is not None:
        await world.table.write("z", 1, 1, b"\xc1")
        nodes[1].bus.is_down = True
        world.bus.cut()
    await trio.sleep(6)
    assert nodes[1].hub.statistics().bus_unknown_total - before == 6
    assert (nodes[1].hub.statistics().rows_unknown_total > 0) is (world.table is not None)
    nodes[0].say()
    await world.arrived(1, within_s=10)


async def test_a_publisher_never_waits_for_the_bus(world: World, nodes: list[Node]) -> None:
    nodes[0].bus.hangs = True
    for _ in range(12_000):
        nodes[0].say()
    await wait_all_tasks_blocked()
    figures = nodes[0].hub.statistics()
    assert figures.bus_waiting <= nodes[0].hub.limits.bus_queue_max
    assert figures.bus_lost_total > 0
    nodes[0].bus.hangs = False
    await world.arrived(12_000, within_s=30)
