"""The pump under everything at once: members leave, return, stall and drain while turns breathe, and entries come out of order.

Whatever happens, each connection has in the end every number behind its first position, once and in order, and the books balance.
Only who asks for what lies before its place gets again what follows there.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import secureconnect.hub.channel as channel_module
import secureconnect.hub.pump as pump_module
from secureconnect.hub import Frame, Hub, Item, Limits
from secureconnect.hub.testing import MemorySource, RecordingSocket

CHANNELS = ("room:1", "room:2")
CLIENTS = 6
LIMITS = Limits(queue_max=7, queue_bytes_max=60, replay_wait_s=1e9)

client = st.integers(0, CLIENTS - 1)
channel = st.sampled_from(CHANNELS)
step = st.one_of(
    st.tuples(st.just("say"), channel, st.integers(1, 4)),
    st.tuples(st.just("store"), channel, st.integers(1, 3)),
    st.tuples(st.just("hear"), channel, st.integers(0, 9)),
    st.tuples(st.just("flash"), channel, st.integers(0, 2)),
    st.tuples(st.just("breathe"), st.just(""), st.just(0)),
    st.tuples(st.just("settle"), st.just(""), st.just(0)),
    st.tuples(st.just("leave"), channel, client),
    st.tuples(st.just("back"), channel, client),
    st.tuples(st.just("rewind"), channel, client),
    st.tuples(st.just("stall"), st.sampled_from(("0", "1", "7")), client),
    st.tuples(st.just("drain"), st.just(""), client),
    st.tuples(st.just("own"), st.just(""), client),
    st.tuples(st.just("breathe"), st.just(""), st.just(1)),
    st.tuples(st.just("breathe"), st.just(""), st.just(2)),
)


class Client:
    """A socket that remembers how far it is in each channel."""

    def __init__(self, hub: Hub, index: int) -> None:
        self.socket = RecordingSocket(room=3 + index)
        self.peer = hub.connect(self.socket)
        self.begun: dict[str, list[int]] = {}
        """The positions behind which it asked for everything: the first one, and those before the place that it had then."""

    def numbers(self, channel: str) -> list[int]:
        """All that has left or is about to, in order. Payloads are short: `<channel's last character>:<number>`."""
        stream = bytes(self.socket.written) + b"".join(data for data, _ in self.socket.kept)
        found = []
        while stream:
            payload, stream = stream[2 : 2 + stream[1]], stream[2 + stream[1] :]
            name, number = payload.decode().split(":")
            if name == channel[-1] and number:
                found.append(int(number))
        return found

    async def back(self, channel: str) -> None:
        had = self.numbers(channel)
        after = had[-1] if had else self.begun.get(channel, [None])[-1]
        place = await self.peer.prepare(channel, after=after)
        assert place.recovered
        if channel not in self.begun:
            assert isinstance(place.position, int)
            self.begun[channel] = [place.position]
        self.peer.start([channel])

    async def rewind(self, channel: str) -> None:
        member = self.peer.members.get(channel)
        if member is not None and member.began > 0:
            self.begun[channel].append(member.began - 1)
            place = await self.peer.prepare(channel, after=member.began - 1)
            assert place.recovered
            assert self.peer.members[channel] is not member
            self.peer.start([channel])

    def check(self, channel: str) -> None:
        last, *again = self.begun[channel]
        for number in self.numbers(channel):
            if number != last + 1:
                assert number <= last, "a hole"
                again = again[again.index(number - 1) + 1 :]
            last = number


class World:
    def __init__(self, hub: Hub, source: MemorySource) -> None:
        self.hub, self.source = hub, source
        self.clients = [Client(hub, index) for index in range(CLIENTS)]
        self.unheard: dict[str, list[Item]] = {name: [] for name in CHANNELS}
        self.turn: Iterator[None] | None = None

    def store(self, channel: str, count: int) -> list[Item]:
        tail = len(self.source.logs.get(channel, ()))
        return self.source.append(channel, *[f"{channel[-1]}:{n}".encode() for n in range(tail + 1, tail + count + 1)])

    async def do(self, what: str, name: str, n: int) -> None:
        match what:
            case "say":
                self.hub.commit(name, self.store(name, n))
            case "store":
                self.unheard[name] += self.store(name, n)
            case "hear" if self.unheard[name]:
                waiting = self.unheard[name]
                self.hub._channels.offer(name, [waiting.pop(n % len(waiting))])
            case "flash":
                self.hub.send(name, Frame(f"{name[-1]}:".encode(), name, "typing"), coalesce=str(n) if n else None)
            case "breathe":
                self.breathe()
            case "settle":
                await wait_all_tasks_blocked()
            case "leave":
                self.clients[n].peer.leave(name)
            case "back":
                await self.clients[n].back(name)
            case "rewind":
                await self.clients[n].rewind(name)
            case "stall":
                self.clients[n].socket.window = int(name)
            case "drain":
                self.clients[n].socket.drain()
            case "own":
                self.clients[n].socket.push(Frame(b"x:", "", "pong").ws)
        self.check()

    def breathe(self) -> None:
        if self.turn is None:
            self.turn = self.hub._channels.pump.turn()
        if next(self.turn, self) is self:
            self.turn = None

    def check(self) -> None:
        ledger, statistics = self.hub.ledger, self.hub.statistics()
        assert ledger.balances
        assert ledger.pending == sum(client.peer.pending for client in self.clients)
        assert statistics.queued_max <= LIMITS.queue_max
        assert statistics.queued_bytes <= LIMITS.queue_bytes_max
        for one in self.clients:
            for name in one.begun:
                one.check(name)

    async def come_to_rest(self, clock: MockClock) -> None:
        for one in self.clients:
            for name in CHANNELS:
                await one.back(name)
        for name in CHANNELS:
            self.hub._channels.hint(name, len(self.source.logs.get(name, ())))
        for _ in range(60):
            for one in self.clients:
                one.socket.drain()
            self.breathe()
            while self.turn is not None:
                self.breathe()
            await wait_all_tasks_blocked()
            clock.jump(0.1)
            await wait_all_tasks_blocked()
        self.check()
        for one in self.clients:
            for name in CHANNELS:
                assert [one.begun[name][0], *one.numbers(name)][-1] == len(self.source.logs.get(name, ()))
        assert self.hub.statistics().queued == self.hub.statistics().queued_bytes == self.hub.ledger.pending == 0


async def play(steps: list[tuple[str, str, int]], clock: MockClock) -> None:
    source = MemorySource()
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, limits=LIMITS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub._errands.run)
        nursery.start_soon(hub._timers.run)
        world = World(hub, source)
        for one in world.clients:
            await one.back(CHANNELS[0])
        for what, name, n in steps:
            await world.do(what, name, n)
        await world.come_to_rest(clock)
        nursery.cancel_scope.cancel()


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(step, min_size=25, max_size=90))
def test_everybody_has_everything_once_and_in_order_in_the_end(steps: list[tuple[str, str, int]]) -> None:
    clock = MockClock()
    with patch.object(channel_module, "BLOCK", 2), patch.object(pump_module, "YIELD_EVERY", 1), \
            patch.object(channel_module, "TURN_ITEMS", 3):  # fmt: skip
        trio.run(play, steps, clock, clock=clock)
