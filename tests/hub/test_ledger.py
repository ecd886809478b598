"""The books: every delivery is somewhere, at every moment, also inside the calls of a sink."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from secureconnect.hub import Frame, Hub, Ledger
from secureconnect.hub.testing import MemorySource, RecordingSink, RecordingSocket

ROOM = "room:1"

DEEDS = {
    "handed": lambda ledger, n: ledger.handed(n),
    "queued": lambda ledger, n: ledger.queued(n),
    "not taken": lambda ledger, n: ledger.queued(-min(n, ledger.pending)),
    "left": lambda ledger, n: ledger.left(min(n, ledger.pending)),
    "lost": lambda ledger, n: ledger.lost("slow", n),
    "discarded": lambda ledger, n: ledger.discarded("disconnected", min(n, ledger.pending)),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(DEEDS)), st.integers(0, 9))))
def test_it_balances_after_every_deed(deeds: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    for deed, count in deeds:
        DEEDS[deed](ledger, count)
        assert ledger.balances
    assert 0 not in ledger.dropped.values(), "no cause without a case"


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": MemorySource()})
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


def source_of(hub: Hub) -> MemorySource:
    source = hub._channels.source(ROOM)
    assert isinstance(source, MemorySource)
    return source


async def say(hub: Hub, count: int) -> None:
    hub.commit(ROOM, source_of(hub).append(ROOM, *[b"x"] * count))
    await wait_all_tasks_blocked()


async def test_what_waits_in_a_sink_is_pending_until_it_left_and_dropped_when_its_connection_ends(hub: Hub) -> None:
    peer = hub.connect(RecordingSink())
    await peer.prepare(ROOM)
    peer.start([ROOM])
    await say(hub, 5)
    assert (hub.ledger.published, hub.ledger.pending) == (5, 5)
    peer.delivered(2)
    assert (hub.ledger.delivered, hub.ledger.pending) == (2, 3)
    peer.close()
    assert (hub.ledger.pending, hub.ledger.dropped) == (0, {"disconnected": 3})
    peer.delivered(9)
    peer.close()
    assert hub.ledger.balances
    assert hub.ledger.delivered == 2


async def test_a_direct_write_counts_whole_or_as_pending(hub: Hub) -> None:
    whole, part = RecordingSocket(), RecordingSocket(window=1)
    for socket in (whole, part):
        peer = hub.connect(socket)
        await peer.prepare(ROOM)
        peer.start([ROOM])
    await say(hub, 3)
    assert (hub.ledger.published, hub.ledger.delivered, hub.ledger.pending) == (6, 3, 3)
    part.drain()
    assert (hub.ledger.delivered, hub.ledger.pending) == (6, 0)


async def test_what_a_replay_brings_is_counted_apart(hub: Hub) -> None:
    source_of(hub).append(ROOM, b"1", b"2", b"3")
    peer = hub.connect(RecordingSink())
    await peer.prepare(ROOM, after=0)
    peer.start([ROOM])
    await wait_all_tasks_blocked()
    assert (hub.ledger.replayed, hub.ledger.published) == (3, 0)
    await say(hub, 2)
    peer.delivered(3)
    assert (hub.ledger.pending, hub.ledger.delivered) == (2, 0), "what was queued first leaves first"
    peer.delivered(2)
    assert (hub.ledger.pending, hub.ledger.delivered) == (0, 2)


async def test_what_a_poll_takes_is_counted_apart(hub: Hub) -> None:
    source_of(hub).append(ROOM, b"1")
    peer = hub.connect(RecordingSink(), polls=True)
    await peer.prepare(ROOM, after=0)
    peer.start([ROOM])
    await wait_all_tasks_blocked()
    await say(hub, 2)
    assert (hub.ledger.polled, hub.ledger.published, hub.ledger.replayed) == (3, 0, 0)
    peer.close()
    assert hub.ledger.dropped == {}


async def test_a_sink_may_report_an_event_as_delivered_while_it_is_offered(hub: Hub) -> None:
    class AtOnce(RecordingSink):
        def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
            peer.delivered(len(frames))
            assert hub.ledger.balances
            assert hub.ledger.pending == 0
            return True

    peer = hub.connect(AtOnce())
    await peer.prepare(ROOM)
    peer.start([ROOM])
    await say(hub, 4)
    assert (hub.ledger.published, hub.ledger.delivered) == (4, 4)


async def test_a_newer_ephemeral_event_in_the_sink_takes_the_place_of_an_older_one(hub: Hub) -> None:
    peer = hub.connect(RecordingSink())
    await peer.prepare(ROOM)
    peer.start([ROOM])
    hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    await wait_all_tasks_blocked()
    peer.dropped(1)
    assert hub.ledger.dropped == {"coalesced": 1}
    assert peer.dropped_total == 1
    assert hub.ledger.balances


async def test_every_step_of_the_ladder_is_counted(hub: Hub) -> None:
    sink = RecordingSink(room=1)
    peer = hub.connect(sink)
    await peer.prepare(ROOM)
    peer.start([ROOM])
    await say(hub, 1)
    hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    await wait_all_tasks_blocked()
    await say(hub, 1)
    assert hub.ledger.dropped == {"slow": 1}
    assert hub.ledger.fell_behind == 1
    sink.make_room(5)
    await wait_all_tasks_blocked()
    assert hub.ledger.replayed == 1
    assert hub.ledger.balances
