"""A whole hub as an embedder uses it, on asyncio and on trio. Nothing here waits for time: events only, bounded by deadlines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from secureconnect.hub import Closed, Frame, Full, Hub, Limits, MemoryBus, Page, Peer, Place, SourceAway, TableAway
from secureconnect.hub.testing import MemorySource, MemoryTable, RecordingSink, RecordingSocket

pytestmark = pytest.mark.anyio

ROOM = "room:1"
USER = "user:1"


@asynccontextmanager
async def running(source: MemorySource, limits: Limits | None = None) -> AsyncIterator[Hub]:
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, limits=limits)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(partial(hub.run))
            yield hub
            tasks.cancel_scope.cancel()


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
async def hub(source: MemorySource) -> AsyncIterator[Hub]:
    async with running(source) as hub:
        yield hub


async def joined(hub: Hub, sink: RecordingSink, channel: str = ROOM, after: int | str | None = None) -> Peer:
    peer = hub.connect(sink)
    await peer.prepare(channel, after=after)
    peer.start([channel])
    return peer


async def test_what_is_committed_reaches_every_member_once_and_in_order(hub: Hub, source: MemorySource) -> None:
    sinks: list[RecordingSink] = [RecordingSink(), RecordingSocket(), RecordingSink()]
    for sink in sinks:
        await joined(hub, sink)
    for n in range(20):
        hub.commit(ROOM, source.append(ROOM, b"%d" % n))
        if n % 7 == 0:
            await checkpoint()
    await sinks[0].wait_frames(20)
    await sinks[2].wait_frames(20)
    assert sinks[0].numbers(ROOM) == sinks[2].numbers(ROOM) == list(range(1, 21))
    assert hub.ledger.balances


async def test_commits_of_one_moment_leave_in_one_write(hub: Hub, source: MemorySource) -> None:
    socket = RecordingSocket()
    await joined(hub, socket)
    for item in source.append(ROOM, b"1", b"2", b"3"):
        hub.commit(ROOM, [item])
    while not socket.written:
        await checkpoint()
    assert socket.writes == 1
    assert bytes(socket.written) == b"\x81\x011\x81\x012\x81\x013"


async def test_who_comes_back_gets_what_it_missed_and_then_what_is_new(hub: Hub, source: MemorySource) -> None:
    hub.commit(ROOM, source.append(ROOM, b"1", b"2", b"3"))
    sink = RecordingSink()
    peer = hub.connect(sink)
    assert await peer.prepare(ROOM, after=1) == Place(3, 1, True, 2)
    peer.start([ROOM])
    hub.commit(ROOM, source.append(ROOM, b"4"))
    await sink.wait_frames(3)
    assert sink.numbers(ROOM) == [2, 3, 4]


async def test_a_prepared_place_is_silent_and_loses_nothing(hub: Hub, source: MemorySource) -> None:
    sink, other = RecordingSink(), RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    await joined(hub, other)
    hub.commit(ROOM, source.append(ROOM, b"1", b"2"))
    await other.wait_frames(2)
    assert sink.frames == []
    peer.start([ROOM, "room:unknown"])
    await sink.wait_frames(2)
    hub.commit(ROOM, source.append(ROOM, b"3"))
    await sink.wait_frames(3)
    assert sink.numbers(ROOM) == [1, 2, 3]


async def test_a_second_subscription_behind_the_beginning_of_the_first_repeats_nothing(hub: Hub, source: MemorySource) -> None:
    """All that it asks for was delivered on this connection, or will be."""
    source.append(ROOM, b"1")
    sink = RecordingSink()
    peer = await joined(hub, sink)
    hub.commit(ROOM, source.append(ROOM, b"2", b"3"))
    await sink.wait_frames(2)
    for after in (None, 1, 2, 3):
        assert (await peer.prepare(ROOM, after=after)) == Place(3, 1, True, 0), after
    peer.start([ROOM])
    hub.commit(ROOM, source.append(ROOM, b"4"))
    await sink.wait_frames(3)
    assert sink.numbers(ROOM) == [2, 3, 4]


async def test_a_second_subscription_from_before_the_first_replays_what_lies_between(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 5)
    sink = RecordingSink()
    peer = await joined(hub, sink)
    hub.commit(ROOM, source.append(ROOM, b"6"))
    await sink.wait_frames(1)
    assert await peer.prepare(ROOM, after=2) == Place(6, 1, True, 4)
    hub.commit(ROOM, source.append(ROOM, b"7"))
    peer.start([ROOM])
    await sink.wait_frames(6)
    assert sink.numbers(ROOM) == [6, 3, 4, 5, 6, 7]
    assert await peer.prepare(ROOM, after=2) == Place(7, 1, True, 0), "and that is its beginning now"
    assert len(hub.members(ROOM)) == 1


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (1, Place(6, 1, False, 5)),
        (9, Place(6, 1, False, 0, reset=True)),
        ("e-4", Place(6, 1, False, 0)),
    ],
)
async def test_a_second_subscription_that_cannot_be_served_says_so_and_loses_nothing(
    after: int | str, said: Place, source: MemorySource
) -> None:
    async with running(source, Limits(replay_entries_max=3)) as hub:
        source.append(ROOM, *[b"x"] * 5)
        sink = RecordingSink()
        peer = await joined(hub, sink)
        hub.commit(ROOM, source.append(ROOM, b"6"))
        await sink.wait_frames(1)
        assert await peer.prepare(ROOM, after=after) == said
        hub.commit(ROOM, source.append(ROOM, b"7"))
        peer.start([ROOM])
        await sink.wait_frames(2)
        assert sink.numbers(ROOM) == [6, 7]


async def test_what_was_not_delivered_yet_when_it_is_asked_again_still_comes_behind_what_is_said(hub: Hub) -> None:
    """A client begins a channel that it does not know at the place that it is told."""
    sink = RecordingSink()
    peer = hub.connect(sink)
    first = await peer.prepare(USER)
    came = hub.publish(USER, "x", b"{}")
    again = await peer.prepare(USER)
    assert (again.position, again.recovered, again.missed) == (first.position, True, 0)
    refused = await peer.prepare(USER, after="of another life-5")
    assert (refused.position, refused.recovered) == (first.position, False)
    peer.start([USER])
    await sink.wait_frames(1)
    assert sink.positions == [came]


async def test_a_place_that_is_silent_yet_begins_exactly_where_it_is_asked_to(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, b"1")
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    hub.commit(ROOM, source.append(ROOM, b"2", b"3"))
    assert await peer.prepare(ROOM, after=2) == Place(3, 1, True, 1)
    peer.start([ROOM])
    await sink.wait_frames(1)
    assert sink.numbers(ROOM) == [3]


async def test_a_channel_without_a_log_is_resumed_at_any_time(hub: Hub) -> None:
    keeps, sink = RecordingSink(), RecordingSink()
    await joined(hub, keeps, USER)
    before = hub.publish(USER, "x", b'{"n":1}')
    missed = hub.publish(USER, "x", b'{"n":2}')
    peer = await joined(hub, sink, USER)
    live = hub.publish(USER, "x", b'{"n":3}')
    await sink.wait_frames(1)
    place = await peer.prepare(USER, after=before)
    assert (place.position, place.recovered, place.missed) == (live, True, 2)
    peer.start([USER])
    await sink.wait_frames(3)
    assert sink.positions == [live, missed, live]
    stays = await peer.prepare(USER, after=missed)
    assert (stays.position, stays.recovered, stays.missed) == (live, True, 0)
    assert not (await peer.prepare(USER, after="of another life-5")).recovered
    await anyio.wait_all_tasks_blocked()
    assert len(sink.frames) == 3


async def test_behind_a_gap_only_what_lies_there_was_delivered(source: MemorySource) -> None:
    """What fell out of the history was told as missing; who asks for it again is not told that nothing is."""
    async with running(source, Limits(history_events_max=3)) as hub:
        sink, quick = RecordingSink(room=0), RecordingSink()
        peer = await joined(hub, sink, USER)
        await joined(hub, quick, USER)
        positions = [hub.publish(USER, "x", b"%d" % n) for n in range(6)]
        await quick.wait_frames(6)
        sink.make_room(99)
        await sink.wait_frames(4)
        assert not (await peer.prepare(USER, after=positions[1])).recovered
        assert (await peer.prepare(USER, after=positions[2])).recovered


async def test_a_second_subscription_that_is_cancelled_or_refused_leaves_the_first(hub: Hub, source: MemorySource) -> None:
    sink = RecordingSink()
    peer = await joined(hub, sink)
    source.is_away = True
    with pytest.raises(SourceAway):
        await peer.prepare(ROOM, after=3)
    source.is_away, source.delay_s = False, 1e9
    with anyio.move_on_after(0.01):
        await peer.prepare(ROOM, after=3)
    source.delay_s = 0
    hub.commit(ROOM, source.append(ROOM, b"1"))
    await sink.wait_frames(1)


async def test_two_subscriptions_at_once_are_one_place(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, b"1", b"2")
    sink = RecordingSink()
    peer = hub.connect(sink)
    places: list[Place] = []

    async def prepare(after: int) -> None:
        places.append(await peer.prepare(ROOM, after=after))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prepare, 1)
        tasks.start_soon(prepare, 1)
    assert places == [Place(2, 1, True, 1)] * 2
    assert hub.members(ROOM) == (peer,)
    peer.start([ROOM])
    await sink.wait_frames(1)
    assert sink.numbers(ROOM) == [2]


async def test_too_much_missed_is_said_and_events_go_on_behind_the_end(source: MemorySource) -> None:
    async with running(source, Limits(replay_entries_max=3)) as hub:
        source.append(ROOM, *[b"x"] * 9)
        sink = RecordingSink()
        peer = hub.connect(sink)
        assert await peer.prepare(ROOM, after=5) == Place(9, 1, False, 4)
        peer.start([ROOM])
        hub.commit(ROOM, source.append(ROOM, b"10"))
        await sink.wait_frames(1)
        assert sink.numbers(ROOM) == [10]


async def test_a_member_sees_nothing_below_its_first_number(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 9)
    sink = RecordingSink()
    peer = hub.connect(sink)
    assert await peer.prepare(ROOM, after=2, first=5) == Place(9, 5, False, 7)
    assert await hub.connect(sink).prepare(ROOM, after=4, first=5) == Place(9, 5, True, 5)
    assert await hub.connect(sink).prepare(ROOM, first=12) == Place(11, 12, True, 0)


async def test_a_client_that_knows_more_than_this_node_has_heard_is_believed_when_the_log_knows_it_too(
    hub: Hub, source: MemorySource
) -> None:
    """Its last events came by another node, and the bus has lost them here."""
    await joined(hub, RecordingSink())
    source.append(ROOM, b"1", b"2")
    sink = RecordingSink()
    peer = hub.connect(sink)
    assert await peer.prepare(ROOM, after=2) == Place(2, 1, True, 0)
    peer.start([ROOM])
    hub.commit(ROOM, source.append(ROOM, b"3"))
    await sink.wait_frames(1)
    assert sink.numbers(ROOM) == [3]
    assert await hub.connect(sink).prepare(ROOM, after=9) == Place(3, 1, False, 0, reset=True)


async def test_a_log_that_is_away_refuses_the_place_and_leaves_nothing_behind(hub: Hub, source: MemorySource) -> None:
    source.is_away = True
    peer = hub.connect(RecordingSink())
    with pytest.raises(SourceAway):
        await peer.prepare(ROOM)
    assert peer.channels() == ()
    assert hub.members(ROOM) == ()
    source.is_away = False
    await peer.prepare(ROOM)
    assert peer.channels() == (ROOM,)


async def test_a_closed_peer_takes_no_place_even_if_it_was_closed_meanwhile(hub: Hub, source: MemorySource) -> None:
    peer = hub.connect(RecordingSink())
    source.is_away = True

    async def prepare() -> None:
        with pytest.raises((Closed, SourceAway)):
            await peer.prepare(ROOM)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prepare)
        await checkpoint()
        source.is_away = False
        peer.close()
    with pytest.raises(Closed):
        await peer.prepare(USER)
    assert hub.members(ROOM) == ()
    assert hub.members(USER) == ()


async def test_a_cancelled_subscription_takes_no_place(hub: Hub, source: MemorySource) -> None:
    source.delay_s = 60
    peer = hub.connect(RecordingSink())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.prepare, ROOM)
        await checkpoint()
        tasks.cancel_scope.cancel()
    assert hub.members(ROOM) == ()
    assert peer.channels() == ()


async def test_who_left_gets_nothing_more_and_the_roster_knows(hub: Hub, source: MemorySource) -> None:
    first, second = RecordingSink(), RecordingSink()
    peers = [await joined(hub, first), await joined(hub, second)]
    assert hub.members(ROOM) == tuple(peers)
    assert peers[0].leave(ROOM)
    assert not peers[0].leave(ROOM)
    assert hub.members(ROOM) == (peers[1],)
    hub.commit(ROOM, source.append(ROOM, b"1"))
    await second.wait_frames(1)
    assert first.frames == []
    peers[1].close()
    assert hub.members(ROOM) == ()
    assert hub.statistics().peers == 1


async def test_a_channel_without_a_log_gives_positions_and_resumes_from_them(hub: Hub) -> None:
    assert hub.publish(USER, "call.ringing", b"{}") == "", "nobody listens here: nothing is kept"
    sink = RecordingSink()
    peer = await joined(hub, sink, USER)
    first = hub.publish(USER, "call.ringing", b'{"n":1}')
    second = hub.publish(USER, "call.ringing", b'{"n":2}')
    await sink.wait_frames(2)
    assert sink.positions == [first, second]
    assert json.loads(sink.frames[0].payload) == {"event": "call.ringing", "channel": USER, "position": first, "data": {"n": 1}}
    peer.close()
    third = hub.publish(USER, "call.ringing", b'{"n":3}')
    back = RecordingSink()
    again = hub.connect(back)
    place = await again.prepare(USER, after=first)
    assert (place.position, place.recovered, place.missed) == (third, True, 2)
    again.start([USER])
    await back.wait_frames(2)
    assert back.positions == [second, third]


async def test_a_position_of_another_life_is_refused(hub: Hub) -> None:
    await joined(hub, RecordingSink(), USER)
    place = await hub.connect(RecordingSink()).prepare(USER, after="0123456781-3")
    assert (place.recovered, place.reset) == (False, False)


async def test_a_slow_reader_of_a_history_is_told_what_fell_out_of_it(source: MemorySource) -> None:
    async with running(source, Limits(history_events_max=3)) as hub:
        sink, quick = RecordingSink(room=0), RecordingSink()
        await joined(hub, sink, USER)
        await joined(hub, quick, USER)
        positions = [hub.publish(USER, "x", b"%d" % n) for n in range(6)]
        await quick.wait_frames(6)
        sink.make_room(99)
        await sink.wait_frames(4)
        assert [frame.event for frame in sink.frames] == ["gap", "x", "x", "x"]
        assert sink.positions == positions[2:]
        assert json.loads(sink.frames[0].payload)["data"] == {"channel": USER, "after": positions[2], "cause": "history"}


async def test_an_ephemeral_event_goes_to_who_is_live_and_is_not_kept(hub: Hub) -> None:
    sink = RecordingSink()
    await joined(hub, sink)
    hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    await sink.wait_frames(1)
    late = RecordingSink()
    await joined(hub, late, after=0)
    hub.send(ROOM, Frame(b"u", ROOM, "typing"))
    await late.wait_frames(1)
    assert [frame.payload for frame in late.frames] == [b"u"]


async def test_a_signal_has_acted_on_return(hub: Hub) -> None:
    got: list[bytes] = []
    hub.on_signal("session.ended", got.append)
    hub.signal("session.ended", b"x")
    assert got == [b"x"]


async def test_room_is_reserved_before_an_append_and_a_full_channel_refuses(source: MemorySource) -> None:
    async with running(source, Limits(queue_max=2, reserve_wait_s=0.01)) as hub:
        with await hub.reserve(ROOM), await hub.reserve(ROOM), await hub.reserve(ROOM):
            pass  # free where the channel is not open
        await joined(hub, RecordingSink())
        with await hub.reserve(ROOM), await hub.reserve(ROOM):
            with pytest.raises(Full) as refused:
                await hub.reserve(ROOM)
            assert refused.value.channel == ROOM
        (await hub.reserve(ROOM)).release()
        assert hub.statistics().full_total == 1


async def test_a_publisher_waits_for_the_pump_and_not_longer(source: MemorySource) -> None:
    async with running(source, Limits(queue_max=2, reserve_wait_s=60)) as hub:
        sink = RecordingSink()
        await joined(hub, sink)
        for n in range(1, 10):
            with await hub.reserve(ROOM):
                hub.commit(ROOM, source.append(ROOM, b"%d" % n))
        await sink.wait_frames(9)
        assert sink.numbers(ROOM) == list(range(1, 10))
        assert hub.statistics().queued == 0


async def test_room_that_is_given_back_unused_wakes_who_waits_for_it(source: MemorySource) -> None:
    """No turn comes to wake it: whoever held the room was refused by the log, or took its answer after the turn had ended."""
    async with running(source, Limits(queue_max=1, reserve_wait_s=60)) as hub, anyio.create_task_group() as tasks:
        await joined(hub, RecordingSink())
        room, got = await hub.reserve(ROOM), anyio.Event()

        async def wait() -> None:
            with await hub.reserve(ROOM):
                got.set()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        room.release()
        with anyio.fail_after(5):
            await got.wait()


async def test_a_cancelled_reservation_holds_nothing(source: MemorySource) -> None:
    async with running(source, Limits(queue_max=1, reserve_wait_s=60)) as hub:
        await joined(hub, RecordingSink())
        with await hub.reserve(ROOM):
            with anyio.move_on_after(0.01) as scope:
                await hub.reserve(ROOM)
            assert scope.cancelled_caught
        (await hub.reserve(ROOM)).release()


async def test_what_was_asked_for_before_it_runs_is_done_when_it_does(source: MemorySource) -> None:
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, bus=MemoryBus())
    sink = RecordingSink()
    places: list[Place] = []

    async def subscribe() -> None:
        peer = hub.connect(sink)
        places.append(await peer.prepare(ROOM, after=0))
        peer.start([ROOM])

    hub.commit(ROOM, source.append(ROOM, b"1"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscribe)
            await checkpoint()
            await tasks.start(hub.run)
            await sink.wait_frames(1)
            tasks.cancel_scope.cancel()
    assert places == [Place(1, 1, True, 1)]


async def test_a_source_that_is_buggy_ends_the_hub_instead_of_being_called_away() -> None:
    class Buggy(MemorySource):
        async def read(self, channel: str, after: int, limit: int) -> Page:
            raise KeyError("bug")

    with pytest.raises(BaseExceptionGroup) as failed:
        async with running(Buggy()) as hub:
            await hub.connect(RecordingSink()).prepare(ROOM)
    assert failed.group_contains(KeyError)


async def test_an_idle_place_costs_no_task_and_no_event(hub: Hub, source: MemorySource) -> None:
    peers = [await joined(hub, RecordingSocket()) for _ in range(10)]
    assert hub.statistics().behind == 0
    assert all(peer.behind is None and peer.replay_scope is None for peer in peers)
    assert not hasattr(peers[0], "__dict__")
    assert not hasattr(peers[0].members[ROOM], "__dict__")
    assert not hasattr(peers[0].members[ROOM].channel, "__dict__")


async def test_the_doubles_keep_the_promises_of_their_protocols(source: MemorySource) -> None:
    source.append(ROOM, b"1", b"2", b"3")
    page = await source.read(ROOM, 1, 1)
    assert ([item.sequence for item in page.items], page.tail, page.first) == ([2], 3, 1)
    assert await source.read("room:unknown", 0, 9) == Page((), 0, 1)
    assert await source.heads([ROOM, "room:unknown"]) == {ROOM: 3}
    source.retain_from(ROOM, 3)
    assert [item.sequence for item in (await source.read(ROOM, 0, 9)).items] == [3]
    table = MemoryTable()
    for number in range(3):
        await table.write("a", 1, number, b"%d" % number)
    assert await table.since({}) == [b"0", b"1", b"2"]
    assert await table.since({"a": (1, 1)}) == [b"2"]
    table.is_away = True
    with pytest.raises(TableAway):
        await table.since({})
