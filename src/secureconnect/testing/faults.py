"""Stores, buses and wires that misbehave by seed: what a chain must survive, made of the protocols that it stands on.

A faulty log store is slow, hangs, refuses, loses its answer after it has stored (`half`), or stores long after its caller gave up
(`zombie`). A faulty bus drops, delays, repeats, is away, or cuts a subscriber. A wire delays, cuts into pieces, holds back,
resets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

import trio

from secureconnect.errors import BackendDown, OutcomeUnknown
from secureconnect.features.log.model import Appended, Entry, Head, LogPage, NewEntry
from secureconnect.features.log.store import LogStore
from secureconnect.hub import BusAway
from secureconnect.ids import ConversationId, MessageId
from secureconnect.testing.determinism import World
from secureconnect.testing.network import MemoryTransport, memory_pair

Mode = Literal["ok", "slow", "hang", "fail", "half", "zombie"]
T = TypeVar("T")
FOREVER_S = 600.0
"""A call that hangs; its caller's deadline ends it, and if it has none the run shows it."""
WINDOW_BYTES = 16_384
"""Unread bytes that a wire holds each way."""


class FaultyLog:
    """A `LogStore` over another one. `longest_s` is the longest that a caller waited for one call."""

    def __init__(self, world: World, store: LogStore, spawn: Callable[..., None]) -> None:
        """`spawn` starts what outlives its caller: a zombie's late write."""
        self._world, self._store, self._spawn = world, store, spawn
        self._rng = world.rng("log store")
        self.mode: Mode = "ok"
        self.healed_s = 0.0
        self.longest_s = 0.0
        self.told_s: dict[tuple[ConversationId, int], float] = {}
        """When a node first learnt that an entry is stored."""

    def set_mode(self, mode: Mode) -> None:
        if self.mode != "ok" and mode == "ok":
            self.healed_s = self._world.now()
        self.mode = mode

    async def append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        appended = await self._call("append", lambda: self._store.append(conversation, entries), is_write=True)
        for one in appended:
            self.told_s.setdefault((conversation, one.entry.sequence), self._world.now())
        return appended

    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        return await self._call("read", lambda: self._store.read(conversation, after, limit))

    async def heads(self, conversations: Sequence[ConversationId]) -> Mapping[ConversationId, Head]:
        return await self._call("heads", lambda: self._store.heads(conversations))

    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]:
        return await self._call("messages", lambda: self._store.messages(conversation, below=below, limit=limit, floor=floor))

    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None:
        return await self._call("message", lambda: self._store.message(conversation, message))

    async def locate(self, message: MessageId) -> ConversationId | None:
        return await self._call("locate", lambda: self._store.locate(message))

    async def _call(self, name: str, do: Callable[[], Awaitable[T]], *, is_write: bool = False) -> T:
        began_s = self._world.now()
        try:
            return await self._faulty(name, do, is_write=is_write)
        finally:
            self.longest_s = max(self.longest_s, self._world.now() - began_s)

    async def _faulty(self, name: str, do: Callable[[], Awaitable[T]], *, is_write: bool) -> T:
        mode, rng = self.mode, self._rng
        if mode != "ok":
            self._world.sometimes(f"{name} {mode}")
        if mode == "hang" or (mode == "zombie" and not is_write):
            await trio.sleep(FOREVER_S)
        if mode == "zombie":
            self._spawn(self._later, rng.uniform(0.5, 6), do)
            await trio.sleep(FOREVER_S)
        await trio.sleep(rng.uniform(0.3, 4) if mode == "slow" else rng.uniform(0.0005, 0.01))
        if mode == "fail":
            raise BackendDown("sql", "refused by the simulation")
        result = await do()
        if mode == "half" and is_write and rng.random() < 0.7:
            raise OutcomeUnknown("the answer was lost by the simulation")
        return result

    async def _later(self, delay_s: float, do: Callable[[], Awaitable[object]]) -> None:
        await trio.sleep(delay_s)
        await do()


class FaultyBus:
    """A `hub.Bus` for several nodes, with one door for each (`at`)."""

    def __init__(self, world: World, spawn: Callable[..., None]) -> None:
        self._world, self._spawn = world, spawn
        self._rng = world.rng("bus")
        self._links: dict[_Link, str] = {}
        self.drop = 0.0
        self.late_s = 0.004
        self.is_down = False
        self.mute: dict[str, None] = {}
        """Nodes whose publishing hangs."""

    def at(self, node: str) -> _Door:
        return _Door(self, node)

    def cut(self, node: str | None = None) -> None:
        """End the links of one node, or of all."""
        for link, owner in list(self._links.items()):
            if node in (None, owner):
                link.cut()

    async def publish(self, node: str, topic: str, data: bytes) -> None:
        await trio.sleep(FOREVER_S if node in self.mute else self._rng.uniform(0.0002, 0.002))
        if self.is_down:
            raise BusAway("down by the simulation")
        for link in list(self._links):
            if not link.hears(topic):
                continue
            if self._rng.random() < self.drop:
                self._world.sometimes("bus drop")
                continue
            for _ in range(2 if self._rng.random() < 0.03 else 1):
                self._spawn(self._deliver, link, topic, data)

    async def _deliver(self, link: _Link, topic: str, data: bytes) -> None:
        await trio.sleep(self._rng.uniform(0.0003, self.late_s))
        link.deliver(topic, data)

    @asynccontextmanager
    async def subscribe(self, node: str) -> AsyncIterator[_Link]:
        await trio.sleep(self._rng.uniform(0.0005, 0.01))
        if self.is_down:
            raise BusAway("down by the simulation")
        link = _Link()
        self._links[link] = node
        try:
            yield link
        finally:
            del self._links[link]
            link.cut()


class _Door:
    """The bus as one node sees it."""

    def __init__(self, bus: FaultyBus, node: str) -> None:
        self._bus, self._node = bus, node

    @property
    def alone(self) -> bool:
        return False

    async def publish(self, topic: str, data: bytes) -> None:
        await self._bus.publish(self._node, topic, data)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[_Link]:
        async with self._bus.subscribe(self._node) as link:
            yield link


class _Link:
    """One subscriber's connection."""

    def __init__(self) -> None:
        self._topics: dict[str, None] = {}
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](10_000)
        self._is_cut = False

    def hears(self, topic: str) -> bool:
        return topic in self._topics and not self._is_cut

    async def listen(self, topics: Iterable[str]) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_cut:
            raise BusAway("cut by the simulation")
        self._topics.update(dict.fromkeys(topics))

    async def unlisten(self, topics: Iterable[str]) -> None:
        await trio.lowlevel.checkpoint()
        for topic in topics:
            self._topics.pop(topic, None)

    async def receive(self) -> tuple[str, bytes]:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise BusAway("cut by the simulation") from None

    def deliver(self, topic: str, data: bytes) -> None:
        if not self._is_cut:
            self._send.send_nowait((topic, data))

    def cut(self) -> None:
        self._is_cut = True
        self._send.close()


class Wire:
    """A connection with latency: what one end sends comes out of the other later, in pieces, or never."""

    def __init__(self, world: World, *, client: str) -> None:
        """`client` is the address that the server sees. `near` is the client's end, `far` the server's."""
        self._rng = world.rng("wire")
        self.near, self._near_relay = memory_pair(window_bytes=WINDOW_BYTES)
        self._far_relay, self.far = memory_pair(window_bytes=WINDOW_BYTES, client=client)
        self.held: trio.Event | None = None
        """Set aside: nothing crosses until it is set (a black hole that heals)."""

    async def run(self) -> None:
        """Carry both directions until both ends are gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, self._near_relay, self._far_relay)
            nursery.start_soon(self._carry, self._far_relay, self._near_relay)

    def reset(self) -> None:
        """Both ends lose the connection at once, and what was on its way."""
        for end in (self.near, self._near_relay, self._far_relay, self.far):
            end.abort()

    async def _carry(self, source: MemoryTransport, target: MemoryTransport) -> None:
        try:
            while data := await source.receive(self._rng.choice((64, 1400, 65_536))):
                await trio.sleep(self._rng.uniform(0.0005, 0.01))
                while self.held is not None:
                    await self.held.wait()
                rest = memoryview(data)
                while rest:
                    try:
                        rest = rest[target.send_now(rest) :]
                    except BlockingIOError:
                        await target.wait_writable()
            target.send_eof()
        except OSError:
            source.abort()
            target.abort()
