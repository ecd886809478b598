"""The pump, turn by turn: what leaves in which write, and who gets what when things happen while a turn breathes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import secureconnect.hub.channel as channel_module
import secureconnect.hub.pump as pump_module
from secureconnect.hub import Frame, Hub, Limits, Peer
from secureconnect.hub.channel import State
from secureconnect.hub.pump import each
from secureconnect.hub.testing import MemorySource, RecordingSink, RecordingSocket

ROOM = "room:1"


class Rig:
    """A hub whose pump turns only when the test says so. Blocks and breaths are of two sockets."""

    def __init__(self, hub: Hub, source: MemorySource) -> None:
        self.hub, self.source = hub, source
        self.ledger = hub.ledger

    def say(self, count: int = 1, channel: str = ROOM, size: int = 1) -> None:
        for item in self.source.append(channel, *[b"%d" % n * size for n in range(count)]):
            self.hub.commit(channel, [item])

    def turn(self) -> Iterator[None]:
        return self.hub._channels.pump.turn()

    def turn_whole(self) -> int:
        """The number of breaths."""
        return sum(1 for _ in self.turn())

    async def join(self, *sinks: RecordingSink, channels: tuple[str, ...] = (ROOM,), after: int | None = None) -> list[Peer]:
        peers = [self.hub.connect(sink) for sink in sinks]
        for peer in peers:
            await self.back(peer, *channels, after=after)
        return peers

    async def back(self, peer: Peer, *channels: str, after: int | None = None) -> None:
        for channel in channels:
            await peer.prepare(channel, after=after)
        peer.start(channels)


@asynccontextmanager
async def rig_of(monkeypatch: pytest.MonkeyPatch, limits: Limits | None = None) -> AsyncIterator[Rig]:
    monkeypatch.setattr(channel_module, "BLOCK", 2)
    monkeypatch.setattr(pump_module, "YIELD_EVERY", 2)
    source = MemorySource()
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub._errands.run)
        nursery.start_soon(hub._timers.run)
        yield Rig(hub, source)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    async with rig_of(monkeypatch) as rig:
        yield rig


def sockets(count: int) -> list[RecordingSocket]:
    return [RecordingSocket() for _ in range(count)]


def read(socket: RecordingSocket) -> list[bytes]:
    """The payloads that were written; each is a short text frame."""
    payloads, rest = [], bytes(socket.written)
    while rest:
        payloads.append(rest[2 : 2 + rest[1]])
        rest = rest[2 + rest[1] :]
    return payloads


def text(payload: bytes) -> bytes:
    return Frame(payload, ROOM, "own").ws


def state(peer: Peer, channel: str = ROOM) -> State:
    return peer.members[channel].state


async def test_a_turn_is_one_write_a_socket_with_a_breath_every_so_many(rig: Rig) -> None:
    all_ = sockets(5)
    await rig.join(*all_)
    rig.say(3)
    assert rig.turn_whole() == 2
    assert [socket.writes for socket in all_] == [1] * 5
    assert [read(socket) for socket in all_] == [[b"0", b"1", b"2"]] * 5
    assert rig.ledger.published == rig.ledger.delivered == 15


async def test_a_socket_in_several_channels_gets_one_write_for_all_of_them(rig: Rig) -> None:
    both, one, other = sockets(3)
    await rig.join(both, channels=("room:1", "room:2"))
    await rig.join(one, channels=("room:1",))
    await rig.join(other, channels=("room:2",))
    rig.say(2, "room:1")
    rig.say(1, "room:2")
    rig.turn_whole()
    assert [socket.writes for socket in (both, one, other)] == [1, 1, 1]
    assert sorted(read(both)) == [b"0", b"0", b"1"]
    assert (read(one), read(other)) == ([b"0", b"1"], [b"0"])
    rig.say(1, "room:1")
    rig.turn_whole()
    assert [socket.writes for socket in (both, one, other)] == [2, 2, 1], "and nothing twice afterwards"


async def test_what_a_turn_takes_of_a_channel_is_bounded_and_channels_take_turns(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "TURN_ITEMS", 2)
    (hot,) = hot_sockets = sockets(1)
    (quiet,) = sockets(1)
    await rig.join(*hot_sockets, channels=("room:1",))
    await rig.join(quiet, channels=("room:2",))
    rig.say(5, "room:1")
    rig.say(1, "room:2")
    rig.turn_whole()
    assert (len(read(hot)), len(read(quiet))) == (2, 1)
    rig.turn_whole()
    rig.turn_whole()
    assert read(hot) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_turn_takes_a_large_event_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "TURN_BYTES", 4)
    (socket,) = sockets(1)
    await rig.join(socket)
    rig.say(3, size=9)
    for n in range(1, 4):
        rig.turn_whole()
        assert socket.writes == n


async def test_large_parts_of_several_channels_do_not_become_one_huge_write(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "TURN_BYTES", 4)
    socket = RecordingSocket(window=5)
    await rig.join(socket, channels=("room:1", "room:2"))
    for channel in ("room:1", "room:2"):
        rig.say(1, channel, size=9)
    rig.turn_whole()
    assert socket.writes == 1, "it did not take the first whole: the second is offered"
    assert [frames for _, frames in socket.kept] == [1, 1]
    socket.drain()
    assert sorted(read(socket)) == [b"0" * 9, b"0" * 9]
    assert rig.ledger.balances


async def test_who_leaves_during_a_breath_gets_nothing_and_who_comes_back_gets_it_once(rig: Rig) -> None:
    all_ = sockets(6)
    peers = await rig.join(*all_)
    rig.say(2)
    turn = rig.turn()
    next(turn)
    assert [bool(socket.written) for socket in all_] == [True, True, False, False, False, False]
    for peer in (peers[1], peers[3], peers[4]):
        peer.leave(ROOM)
    await rig.back(peers[1], ROOM, after=2)
    await rig.back(peers[4], ROOM, after=0)
    await wait_all_tasks_blocked()
    assert peers[4].members[ROOM].cursor == 2
    for _ in turn:
        pass
    assert [read(socket) for socket in all_[:4]] == [[b"0", b"1"], [b"0", b"1"], [b"0", b"1"], []]
    assert all_[4].numbers(ROOM) == [1, 2]
    assert all_[4].writes == 1
    rig.say(1)
    rig.turn_whole()
    assert [len(read(socket)) for socket in all_] == [3, 3, 3, 0, 3, 3]


async def test_who_joins_during_a_breath_gets_the_next_turn_only(rig: Rig) -> None:
    all_ = sockets(4)
    late = RecordingSocket()
    await rig.join(*all_)
    rig.say(1)
    turn = rig.turn()
    next(turn)
    await rig.join(late)
    for _ in turn:
        pass
    assert read(late) == []
    rig.say(1)
    rig.turn_whole()
    assert len(read(late)) == 1
    assert all(len(read(socket)) == 2 for socket in all_)


@pytest.mark.parametrize("served", [True, False], ids=["already served", "not served yet"])
@pytest.mark.parametrize("idle_again", [True, False])
async def test_who_becomes_busy_during_a_breath_gets_it_once(rig: Rig, served: bool, idle_again: bool) -> None:
    all_ = sockets(6)
    peers = await rig.join(*all_)
    index = 0 if served else 5
    peer, socket = peers[index], all_[index]
    rig.say(2)
    turn = rig.turn()
    next(turn)
    before = read(socket)
    socket.window = 0
    socket.push(text(b"own"))
    if idle_again:
        socket.drain()
    for _ in turn:
        pass
    socket.drain()
    assert before == ([b"0", b"1"] if served else [])
    assert [payload for payload in read(socket) if payload != b"own"] == [b"0", b"1"]
    assert state(peer) is State.DIRECT
    rig.say(1)
    rig.turn_whole()
    assert read(socket)[-1] == b"0"
    assert len(read(socket)) == 4
    assert rig.ledger.balances
    assert rig.ledger.pending == 0


async def test_who_falls_behind_and_returns_during_a_breath_misses_and_repeats_nothing(rig: Rig) -> None:
    first, second = RecordingSink(room=0), RecordingSink(room=0)
    others = [RecordingSink() for _ in range(4)]
    peers = await rig.join(first, second, *others)
    rig.say(2)
    turn = rig.turn()
    next(turn)
    assert state(peers[0]) is State.BEHIND
    first.make_room(9)
    await wait_all_tasks_blocked()
    assert state(peers[0]) is State.LIVE
    assert first.numbers(ROOM) == [1, 2]
    for _ in turn:
        pass
    rig.say(1)
    rig.turn_whole()
    second.make_room(9)
    await wait_all_tasks_blocked()
    assert first.numbers(ROOM) == second.numbers(ROOM) == [1, 2, 3]
    assert [sink.numbers(ROOM) for sink in others] == [[1, 2, 3]] * 4
    assert (rig.ledger.fell_behind, rig.ledger.replayed) == (2, 5)


async def test_who_is_ahead_of_the_pump_skips_what_it_has(rig: Rig) -> None:
    """The log was read before the entries came over the bus or from the own append."""
    rig.say(1)
    socket = RecordingSocket()
    (peer,) = await rig.join(socket)
    items = rig.source.append(ROOM, b"a", b"b", b"c")
    peer.leave(ROOM)
    await rig.back(peer, ROOM, after=0)  # one is missed: the log is read, and has more than passed here
    await wait_all_tasks_blocked()
    assert state(peer) is State.LIVE, "ahead: it has what has not passed here"
    rig.hub.commit(ROOM, items[:2])
    rig.turn_whole()
    assert socket.numbers(ROOM) == [1, 2, 3, 4]
    rig.hub.commit(ROOM, items[2:])
    rig.turn_whole()
    assert state(peer) is State.DIRECT
    rig.say(1)
    rig.turn_whole()
    assert read(socket) == [b"0", b"a", b"b", b"c", b"0"]


async def test_who_is_started_with_events_waiting_for_the_pump_does_not_get_them_twice(rig: Rig) -> None:
    socket = RecordingSocket()
    (peer,) = await rig.join(socket, channels=("room:other",))
    await rig.join(RecordingSocket())
    rig.say(2)
    await rig.back(peer, ROOM, after=0)
    await wait_all_tasks_blocked()
    assert socket.numbers(ROOM) == [1, 2]
    rig.turn_whole()
    assert read(socket) == [b"0", b"1"]


async def test_a_socket_that_takes_a_part_keeps_the_rest_and_everything_later_in_order(rig: Rig) -> None:
    whole, part, none = RecordingSocket(), RecordingSocket(window=4), RecordingSocket(window=0)
    peers = await rig.join(whole, part, none)
    rig.say(2)
    rig.turn_whole()
    assert [peer.direct is None for peer in peers] == [False, True, True]
    rig.say(1)
    rig.turn_whole()
    assert rig.ledger.pending == 6
    part.drain()
    none.drain()
    rig.say(1)
    rig.turn_whole()
    assert read(whole) == read(part) == read(none) == [b"0", b"1", b"0", b"0"]
    assert rig.ledger.balances
    assert rig.ledger.pending == 0
    assert rig.ledger.fell_behind == 0


async def test_a_broken_socket_is_reported_and_the_others_get_theirs(rig: Rig) -> None:
    all_ = sockets(3)
    peers = await rig.join(*all_)
    all_[1].error = BrokenPipeError()
    rig.say(1)
    rig.turn_whole()
    assert all_[1].broken_by is all_[1].error
    assert read(all_[0]) == read(all_[2]) == [b"0"]
    assert rig.ledger.dropped == {"disconnected": 1}
    peers[1].close()
    rig.say(1)
    rig.turn_whole()
    assert all_[1].writes == 1
    assert rig.ledger.balances


async def test_a_sink_that_closes_its_peer_while_it_is_offered_to_harms_nobody(rig: Rig) -> None:
    class Ending(RecordingSink):
        peer: Peer

        def offer(self, frames: object, *, droppable: bool) -> bool:
            self.peer.close()
            return False

    ending, other = Ending(), RecordingSink()
    peers = await rig.join(ending, other)
    ending.peer = peers[0]
    rig.say(1)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    rig.say(1)
    rig.turn_whole()
    assert [frame.payload for frame in other.frames] == [b"0", b"t", b"0"]
    assert rig.ledger.balances
    assert rig.hub.members(ROOM) == (peers[1],)


async def test_ephemeral_events_keep_their_place_among_the_numbered_ones(rig: Rig) -> None:
    socket, sink = RecordingSocket(), RecordingSink()
    await rig.join(socket, sink)
    rig.say(1)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    rig.say(1)
    rig.turn_whole()
    assert read(socket) == [frame.payload for frame in sink.frames] == [b"0", b"t", b"0"]


async def test_an_ephemeral_turn_reaches_everybody_once_whatever_moves_during_the_breath(rig: Rig) -> None:
    all_ = sockets(6)
    peers = await rig.join(*all_)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    turn = rig.turn()
    next(turn)
    for peer in (peers[0], peers[5]):
        peer.busy()
        peer.idle()
    for _ in turn:
        pass
    assert [read(socket) for socket in all_] == [[b"t"]] * 6


async def test_who_stays_busy_after_an_ephemeral_turn_is_not_offered_it_again(rig: Rig) -> None:
    all_ = sockets(4)
    peers = await rig.join(*all_)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    turn = rig.turn()
    next(turn)
    peers[0].busy()
    for _ in turn:
        pass
    assert [read(socket) for socket in all_] == [[b"t"]] * 4
    assert all_[0].frames == []


async def test_a_return_between_two_channels_of_one_turn_is_noticed(rig: Rig) -> None:
    """The sockets in several channels are found when the turn begins; each is looked at again when it is its turn."""
    all_ = sockets(3)
    peers = await rig.join(*all_, channels=("room:1", "room:2"))
    rig.say(1, "room:1")
    rig.say(1, "room:2")
    turn = rig.turn()
    next(turn)
    assert [socket.writes for socket in all_] == [1, 1, 0]
    peers[2].leave("room:2")
    await rig.back(peers[2], "room:2")
    for _ in turn:
        pass
    assert [len(read(socket)) for socket in all_] == [2, 2, 1]


async def test_whoever_catches_up_stands_in_a_block_again(rig: Rig) -> None:
    socket, started_late = RecordingSocket(), RecordingSocket()
    (peer,) = await rig.join(socket)
    late = rig.hub.connect(started_late)
    await late.prepare(ROOM)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    rig.turn_whole()
    late.start([ROOM])
    assert state(late) is State.DIRECT, "nothing numbered was missed"
    peer.leave(ROOM)
    rig.say(2)
    rig.turn_whole()
    await rig.back(peer, ROOM, after=0)
    await wait_all_tasks_blocked()
    assert state(peer) is State.DIRECT
    assert read(socket) == [b"t", b"0", b"1"]


async def test_the_ladder_drops_what_is_ephemeral_before_a_member_stops_being_live(rig: Rig) -> None:
    class NoEphemeral(RecordingSink):
        def offer(self, frames: object, *, droppable: bool) -> bool:
            return not droppable and super().offer(frames, droppable=droppable)  # type: ignore[arg-type]  # as declared above

    picky = NoEphemeral()
    (peer,) = await rig.join(picky)
    rig.say(1)
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    rig.say(1)
    rig.turn_whole()
    assert picky.numbers(ROOM) == [1, 2]
    assert rig.ledger.dropped == {"slow": 1}
    assert peer.dropped_total == 1
    assert state(peer) is State.LIVE


async def test_who_is_catching_up_gets_nothing_ephemeral_and_it_is_counted(rig: Rig) -> None:
    (peer,) = await rig.join(RecordingSink(room=0))
    rig.say(1)
    rig.turn_whole()
    assert state(peer) is State.BEHIND
    rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
    rig.turn_whole()
    assert rig.ledger.dropped == {"behind": 1}
    assert rig.ledger.balances


async def test_of_ephemeral_events_with_one_word_only_the_newest_leaves(rig: Rig) -> None:
    sink = RecordingSink()
    await rig.join(sink)
    for payload, word in ((b"1", "ann"), (b"2", "bob"), (b"3", "ann")):
        rig.hub.send(ROOM, Frame(payload, ROOM, "typing"), coalesce=word)
    rig.turn_whole()
    assert [frame.payload for frame in sink.frames] == [b"2", b"3"]
    assert rig.ledger.dropped == {"coalesced": 1}
    assert rig.ledger.balances


async def test_ephemeral_events_may_fill_half_of_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(monkeypatch, Limits(queue_max=8)) as rig:
        sink = RecordingSink()
        await rig.join(sink)
        for _ in range(9):
            rig.hub.send(ROOM, Frame(b"t", ROOM, "typing"))
        assert rig.hub.statistics().queued == 4
        assert rig.ledger.dropped == {"queue": 5}
        rig.turn_whole()
        assert len(sink.frames) == 4
        assert rig.ledger.balances


async def test_a_full_queue_lets_entries_wait_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(monkeypatch, Limits(queue_max=8)) as rig:
        sink = RecordingSink()
        await rig.join(sink)
        rig.say(30)
        assert rig.hub.statistics().queued == 8
        for _ in range(20):
            rig.turn_whole()
            await wait_all_tasks_blocked()
            assert rig.hub.statistics().queued <= 8
        assert sink.numbers(ROOM) == list(range(1, 31))


async def test_the_bound_of_bytes_holds_over_all_channels_and_wakes_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(monkeypatch, Limits(queue_bytes_max=100)) as rig:
        first, second = RecordingSink(), RecordingSink()
        await rig.join(first, channels=("room:1",))
        await rig.join(second, channels=("room:2",))
        rig.say(9, "room:1", size=30)
        rig.say(9, "room:2", size=30)
        for _ in range(20):
            assert rig.hub.statistics().queued_bytes <= 100
            rig.turn_whole()
            await wait_all_tasks_blocked()
        assert first.numbers("room:1") == second.numbers("room:2") == list(range(1, 10))
        assert rig.hub.statistics().queued_bytes == 0


async def test_one_event_larger_than_the_bound_of_bytes_still_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig_of(monkeypatch, Limits(queue_bytes_max=10)) as rig:
        sink = RecordingSink()
        await rig.join(sink)
        rig.say(2, size=99)
        for _ in range(5):
            rig.turn_whole()
            await wait_all_tasks_blocked()
        assert sink.numbers(ROOM) == [1, 2]


@pytest.mark.parametrize("breaths", [1, 3])
async def test_a_log_that_lost_its_end_moves_everybody_even_during_a_breath(rig: Rig, breaths: int) -> None:
    """The lost timeline must not reach anybody after the others were told that it is gone."""
    all_ = sockets(6)
    peers = await rig.join(*all_)
    rig.say(3)
    turn = rig.turn()
    for _ in range(breaths):
        next(turn)
    rig.say(1)
    channel = peers[0].members[ROOM].channel
    assert channel.feed is not None
    channel.feed.cursor = channel.feed.named = 0
    rig.hub._channels._move(channel, 0, "reset")
    del rig.source.logs[ROOM][:]
    await wait_all_tasks_blocked()
    for _ in turn:
        pass
    rig.turn_whole()
    served = 2 * breaths
    assert [len(read(socket)) for socket in all_] == [4] * served + [1] * (6 - served)
    assert [socket.events(ROOM) for socket in all_] == [["gap"]] * 6
    assert rig.hub.statistics().queued == rig.hub.statistics().queued_bytes == 0
    rig.say(1)
    rig.turn_whole()
    assert [read(socket)[-1] for socket in all_] == [b"0"] * 6
    assert [len(read(socket)) for socket in all_] == [5] * served + [2] * (6 - served)


async def test_blocks_that_lost_members_are_joined_again(rig: Rig) -> None:
    all_ = sockets(8)
    peers = await rig.join(*all_)
    channel = peers[0].members[ROOM].channel
    assert [len(block.sends) for block in channel.blocks] == [2, 2, 2, 2]
    for peer in peers[::2]:
        peer.close()
    rig.say(1)
    rig.turn_whole()
    assert [len(block.sends) for block in channel.blocks] == [2, 2]
    for peer in peers:
        peer.close()
    rig.say(1)
    rig.turn_whole()
    assert channel.blocks == []


def test_each_goes_on_behind_an_exception() -> None:
    """CPython's `list.extend` keeps what it had and `map` goes on: relied upon, so checked."""
    calls: list[str] = []

    def would_block(data: bytes) -> int:
        calls.append("would block")
        raise BlockingIOError

    error = BrokenPipeError()

    def breaks(data: bytes) -> int:
        raise error

    assert each([len, would_block, len, breaks, would_block], b"12") == [2, 0, 2, error, 0]
    assert calls == ["would block"] * 2


def test_a_bug_in_a_sink_is_not_swallowed() -> None:
    def buggy(data: bytes) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        each([len, buggy], b"1")
