"""Replays: waiting for room, sources that fail or lag, what retention removed, and who is given up. In virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.hub import Frame, Hub, Limits, Peer, SourceAway
from secureconnect.hub.channel import State
from secureconnect.hub.testing import MemorySource, RecordingSink

ROOM = "room:1"


def run(
    main: Callable[[], Coroutine[object, object, object]], *, clock: object, instruments: Sequence[trio.abc.Instrument]
) -> object:
    return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=instruments)


pytestmark = pytest.mark.trio(run=run)


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
async def hub(source: MemorySource) -> AsyncIterator[Hub]:
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source})
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


async def joined(hub: Hub, sink: RecordingSink, *channels: str, after: int | None = 0) -> Peer:
    peer = hub.connect(sink)
    for channel in channels or (ROOM,):
        await peer.prepare(channel, after=after)
    peer.start(channels or (ROOM,))
    return peer


async def test_a_page_larger_than_the_sink_goes_entry_by_entry_as_room_allows(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 300)
    sink = RecordingSink(room=7)
    peer = await joined(hub, sink)
    while len(sink.frames) < 300:
        await wait_all_tasks_blocked()
        assert sink.room == 0 or len(sink.frames) == 300
        peer.delivered(3)
        sink.make_room(3)
    await wait_all_tasks_blocked()
    assert sink.numbers(ROOM) == list(range(1, 301))
    assert peer.members[ROOM].state is State.LIVE
    assert hub.statistics().behind == 0


async def test_what_is_committed_meanwhile_comes_after_what_was_missed(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 50)
    sink = RecordingSink(room=5)
    await joined(hub, sink)
    for _ in range(60):
        hub.commit(ROOM, source.append(ROOM, b"y"))
        await wait_all_tasks_blocked()
        sink.make_room(2)
    await wait_all_tasks_blocked()
    assert sink.numbers(ROOM) == list(range(1, 111))


async def test_a_sink_that_makes_no_room_for_ten_seconds_is_hung_up_on(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 5)
    sink = RecordingSink(room=2)
    peer = await joined(hub, sink)
    await trio.sleep(9.9)
    assert sink.reason is None
    await trio.sleep(0.2)
    assert sink.reason == "slow_consumer"
    assert not peer.is_open
    assert hub.members(ROOM) == ()
    assert hub.ledger.hung_up == 1
    await wait_all_tasks_blocked()
    assert hub.statistics().behind == 0


async def test_a_sink_that_makes_some_room_now_and_then_is_not(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 6)
    sink = RecordingSink(room=0)
    await joined(hub, sink)
    for _ in range(6):
        await trio.sleep(9)
        sink.make_room(1)
    await wait_all_tasks_blocked()
    assert sink.reason is None
    assert sink.numbers(ROOM) == [1, 2, 3, 4, 5, 6]


async def test_room_that_others_always_take_first_ends_like_no_room(hub: Hub, source: MemorySource) -> None:
    class Contested(RecordingSink):
        async def wait_room(self, frames: Sequence[Frame]) -> None:
            await trio.sleep(1)

    source.append(ROOM, b"x")
    sink = Contested(room=0)
    await joined(hub, sink)
    await trio.sleep(12)
    assert sink.reason == "slow_consumer"


async def test_who_leaves_while_it_waits_for_room_is_not_hung_up_on(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, b"1")
    source.append("room:2", b"1")
    sink = RecordingSink(room=0)
    peer = await joined(hub, sink, ROOM, "room:2")
    await wait_all_tasks_blocked()
    peer.leave(ROOM)
    peer.leave("room:2")
    await trio.sleep(60)
    assert sink.reason is None
    assert peer.is_open
    assert hub.statistics().behind == 0


async def test_closing_ends_a_replay_at_once(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, b"1")
    peer = await joined(hub, RecordingSink(room=0))
    await wait_all_tasks_blocked()
    assert hub.statistics().behind == 1
    peer.close()
    await wait_all_tasks_blocked()
    assert hub.statistics().behind == 0


async def test_a_source_that_is_away_only_delays(hub: Hub, source: MemorySource) -> None:
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    hub.commit(ROOM, source.append(ROOM, b"1", b"2"))
    source.is_away = True
    peer.start([ROOM])
    await trio.sleep(30)
    assert sink.frames == []
    assert 20 <= source.calls["read"] <= 45, "asked about once a second"
    source.is_away = False
    await trio.sleep(2)
    assert sink.numbers(ROOM) == [1, 2]


async def test_a_log_that_is_away_does_not_keep_the_others_waiting(hub: Hub, source: MemorySource) -> None:
    other = MemorySource()
    hub._channels._sources["den:"] = other
    sink = RecordingSink()
    source.append(ROOM, b"1")
    other.append("den:1", b"1")
    peer = hub.connect(sink)
    for channel in (ROOM, "den:1"):
        await peer.prepare(channel, after=0)
    source.is_away = True
    peer.start([ROOM, "den:1"])
    await trio.sleep(0.3)
    assert sink.numbers("den:1") == [1]
    assert sink.numbers(ROOM) == []
    source.is_away = False
    await trio.sleep(2)
    assert sink.numbers(ROOM) == [1]


async def test_who_leaves_and_comes_back_while_its_log_is_away_is_brought_up_once(hub: Hub, source: MemorySource) -> None:
    """The replay of the old place must not take the new one's turn."""
    source.append(ROOM, *[b"x"] * 3)
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM, after=0)
    source.is_away, source.delay_s = True, 0.5
    peer.start([ROOM])
    await trio.sleep(0.1)
    peer.leave(ROOM)
    await peer.prepare(ROOM, after=1)
    peer.start([ROOM])
    await trio.sleep(1)
    source.is_away = False
    await trio.sleep(5)
    assert sink.numbers(ROOM) == [2, 3]
    assert peer.members[ROOM].state is State.LIVE
    assert hub.statistics().behind == 0


async def test_behind_a_reset_only_what_lies_there_was_delivered(hub: Hub, source: MemorySource) -> None:
    sink = RecordingSink()
    source.append(ROOM, *[b"x"] * 9)
    peer = await joined(hub, sink, after=None)
    del source.logs[ROOM][5:]
    hub._channels.hint(ROOM, 10)
    await trio.sleep(30)
    assert sink.events(ROOM) == ["gap"]
    hub.commit(ROOM, source.append(ROOM, b"6 again"))
    await trio.sleep(1)
    place = await peer.prepare(ROOM, after=5)
    assert (place.recovered, place.missed) == (True, 0)
    await peer.prepare(ROOM, after=3)
    peer.start([ROOM])
    await trio.sleep(1)
    assert sink.numbers(ROOM) == [6, 4, 5, 6]


async def test_who_leaves_and_comes_back_during_a_read_that_fails_is_brought_up(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, b"1")
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM, after=0)
    source.is_away, source.delay_s = True, 1.0
    peer.start([ROOM])
    await trio.sleep(0.5)
    peer.leave(ROOM)
    await peer.prepare(ROOM, after=0)
    peer.start([ROOM])
    await trio.sleep(1)
    source.is_away, source.delay_s = False, 0.1
    await trio.sleep(10)
    assert sink.numbers(ROOM) == [1]
    assert source.calls["read"] < 10, "and nobody reads for who has left"


async def test_a_source_that_hangs_is_given_up_after_its_deadline_and_asked_again(hub: Hub, source: MemorySource) -> None:
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    hub.commit(ROOM, source.append(ROOM, b"1"))
    source.delay_s = 3600
    peer.start([ROOM])
    await trio.sleep(4)
    source.delay_s = 0
    await trio.sleep(4)
    assert sink.numbers(ROOM) == [1]


async def test_a_replica_that_lags_is_asked_again_until_it_knows_what_passed(hub: Hub, source: MemorySource) -> None:
    sink = RecordingSink()
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    hub.commit(ROOM, source.append(ROOM, b"1", b"2"))
    source.lag = 1
    peer.start([ROOM])
    await trio.sleep(1)
    assert sink.numbers(ROOM) == [1]
    assert peer.members[ROOM].state is State.BEHIND
    source.lag = 0
    await trio.sleep(1)
    assert sink.numbers(ROOM) == [1, 2]


async def test_what_retention_removed_under_a_slow_reader_is_told_as_a_gap(hub: Hub, source: MemorySource) -> None:
    source.append(ROOM, *[b"x"] * 9)
    sink = RecordingSink(room=2)
    await joined(hub, sink)
    await wait_all_tasks_blocked()
    source.retain_from(ROOM, 6)
    hub.commit(ROOM, source.append(ROOM, b"10"))
    sink.make_room(99)
    await trio.sleep(1)
    assert sink.numbers(ROOM) == list(range(1, 11)), "what was read already is still handed over"
    source.append("room:2", *[b"x"] * 9)
    late = hub.connect(behind := RecordingSink())
    await late.prepare("room:2", after=1)
    source.retain_from("room:2", 6)
    late.start(["room:2"])
    await trio.sleep(1)
    assert behind.events("room:2") == ["gap"] + ["said"] * 4
    assert behind.positions == [5, 6, 7, 8, 9]
    assert json.loads(behind.frames[0].payload)["data"] == {"channel": "room:2", "after": 5, "cause": "retention"}


async def test_an_idle_sink_is_not_given_more_at_once_than_a_turn_brings(hub: Hub, source: MemorySource) -> None:
    """Its owner writes what an idle socket is offered without asking for a bound."""

    class Greedy(RecordingSink):
        sizes: list[int]

        def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
            self.sizes.append(sum(len(frame.payload) for frame in frames))
            return super().offer(frames, droppable=droppable)

    source.append(ROOM, *[b"x" * 60_000] * 30)
    sink = Greedy()
    sink.sizes = []
    await joined(hub, sink)
    await trio.sleep(1)
    assert len(sink.frames) == 30
    assert max(sink.sizes) <= (256 << 10) + 60_000


async def test_a_log_restored_from_a_backup_tells_everybody_where_it_goes_on(hub: Hub, source: MemorySource) -> None:
    live = RecordingSink()
    await joined(hub, live)
    hub.commit(ROOM, source.append(ROOM, *[b"x"] * 9))
    await wait_all_tasks_blocked()
    del source.logs[ROOM][5:]
    hub._channels.hint(ROOM, 10)
    await trio.sleep(30)
    assert live.events(ROOM) == ["said"] * 9 + ["gap"]
    assert live.frames[-1].position == 5
    assert json.loads(live.frames[-1].payload)["data"]["cause"] == "reset"
    hub.commit(ROOM, source.append(ROOM, b"6 again"))
    await trio.sleep(1)
    assert live.frames[-1].payload == b"6 again"


@pytest.mark.parametrize("to", [0, 2, 4])
async def test_a_replay_under_way_hands_over_nothing_of_a_timeline_that_is_gone(hub: Hub, source: MemorySource, to: int) -> None:
    source.append(ROOM, *[b"x"] * 5)
    sink = RecordingSink(room=2)
    peer = await joined(hub, sink)
    await wait_all_tasks_blocked()
    channel = peer.members[ROOM].channel
    assert channel.feed is not None
    del source.logs[ROOM][to:]
    channel.feed.cursor = channel.feed.named = to
    hub._channels._move(channel, to, "reset")
    sink.make_room(99)
    await trio.sleep(1)
    assert sink.events(ROOM) == ["said", "said", "gap"]
    hub.commit(ROOM, source.append(ROOM, b"new"))
    await wait_all_tasks_blocked()
    assert sink.frames[-1].payload == b"new"


async def test_a_place_that_was_refused_leaves_no_channel_open(hub: Hub, source: MemorySource) -> None:
    source.is_away = True
    with pytest.raises(SourceAway):
        await hub.connect(RecordingSink()).prepare(ROOM)
    await trio.sleep(11)
    assert hub.statistics().channels == 0


async def test_a_channel_closes_when_nobody_came_back_for_a_while(hub: Hub, source: MemorySource) -> None:
    peer = await joined(hub, RecordingSink(), ROOM, "user:1")
    peer.close()
    assert hub.statistics().channels == 2
    await trio.sleep(11)
    assert hub.statistics().channels == 1
    await trio.sleep(50)
    assert hub.statistics().channels == 0


async def test_who_comes_back_in_time_keeps_the_channel_open(hub: Hub) -> None:
    first = await joined(hub, RecordingSink(), "user:1")
    position = hub.publish("user:1", "x", b"1")
    for _ in range(5):
        first.close()
        await trio.sleep(40)
        first = hub.connect(RecordingSink())
        place = await first.prepare("user:1", after=position)
        position = hub.publish("user:1", "x", b"1")
        assert place.recovered
    await trio.sleep(70)
    assert hub.statistics().channels == 1
    assert len(hub._channels.by_name["user:1"].history or ()) == 0, "nothing is kept for longer than a minute"
    place = await hub.connect(RecordingSink()).prepare("user:1", after=position)
    assert place.recovered, "but nothing was missed"


async def test_a_feed_without_room_reads_what_it_could_not_take(source: MemorySource) -> None:
    limits = Limits(queue_max=4)
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        sink = RecordingSink()
        await joined(hub, sink)
        for _ in range(20):
            hub.commit(ROOM, source.append(ROOM, b"x"))
        await trio.sleep(1)
        assert sink.numbers(ROOM) == list(range(1, 21))
        assert hub.statistics().full_total > 0
        nursery.cancel_scope.cancel()
