"""A bus between the nodes of a world, as unreliable as a real one is at its worst: at most once, sometimes twice, in any order.

Its faults are attributes, to be set at any time:

* `drop`, `drop_nodes`: shares of messages that are lost, of channels and of what nodes say to all;
* `late_s`: the longest way of a message; `repeat`: the share that arrives twice;
* `is_down`: nothing works, and every link has been cut;
* `mute[node]`: its publishing hangs; `dark[node]`: only the node itself hears what it publishes, without any error;
* `deaf[node]`: its link brings nothing more, without saying so; `cut(node)`: its link ends.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from secureconnect.hub import BusAway
from secureconnect.testing.faulty_stores import Wire
from secureconnect.testing.world import World

LINK_MESSAGES_MAX = 1_000
"""Messages that wait for one node; more, and its link is cut, as a server does."""
NODES_TOPIC = "nodes"


class FaultyLink:
    """A `hub.Link`."""

    def __init__(self, bus: FaultyBus, node: str) -> None:
        self.is_cut = False
        self.is_deaf = node in bus.deaf
        self.topics: dict[str, None] = {}
        self._bus = bus
        self._coming: list[tuple[float, int, str, bytes]] = []
        self._serial = 0
        self._changed: trio.Event | None = None

    async def listen(self, topics: Iterable[str]) -> None:
        await self._answer()
        self.topics.update(dict.fromkeys(topics))

    async def unlisten(self, topics: Iterable[str]) -> None:
        await self._answer()
        for topic in topics:
            self.topics.pop(topic, None)

    async def receive(self) -> tuple[str, bytes]:
        """Raises: BusAway. Cancellation: nothing is lost."""
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_cut:
                raise BusAway("the link was cut")
            due = self._coming[0][0] if self._coming else float("inf")
            if due <= self._bus.world.now():
                _, _, topic, data = heapq.heappop(self._coming)
                return topic, data
            self._changed = trio.Event()
            with trio.CancelScope(deadline=due):
                await self._changed.wait()

    def deliver(self, at_s: float, topic: str, data: bytes) -> None:
        """It arrives then, if the link still lives."""
        if self.is_cut or self.is_deaf:
            return
        if len(self._coming) >= LINK_MESSAGES_MAX:
            self.cut()
            return
        self._serial += 1
        heapq.heappush(self._coming, (at_s, self._serial, topic, data))
        self._wake()

    def cut(self) -> None:
        """It ends, and the node is told."""
        self.is_cut = True
        self._coming.clear()
        self._wake()

    def grow_deaf(self) -> None:
        """It brings nothing more, and the node is not told."""
        self.is_deaf = True
        self._coming.clear()

    async def _answer(self) -> None:
        if self.is_deaf:
            await trio.sleep_forever()
        await self._bus.latency()
        if self.is_cut:
            raise BusAway("the link was cut")

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class FaultyBus:
    """The bus itself; each node gets its own `port`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.links: dict[str, FaultyLink] = {}
        self.mute: dict[str, None] = {}
        self.dark: dict[str, None] = {}
        self.deaf: dict[str, None] = {}
        self._chance = world.rng("bus")
        self.heal()
        self.bad_until_s = -math.inf
        """When the last fault ended."""

    def heal(self) -> None:
        """Everything works again; links that went deaf are cut, as a broken connection is at last."""
        self.drop = self.drop_nodes = 0.0
        self.late_s = 0.005
        self.repeat = 0.03
        self.is_down = False
        self.bad_until_s = self.world.now()
        for names in (self.mute, self.dark, self.deaf):
            names.clear()
        for link in list(self.links.values()):
            if link.is_deaf:
                link.cut()

    @property
    def is_well(self) -> bool:
        """Whether every message arrives at once."""
        faulty = self.drop or self.drop_nodes or self.is_down or self.mute or self.dark or self.deaf or self.late_s > 0.1
        return not faulty and not any(link.is_deaf for link in self.links.values())

    def port(self, node: str, wire: Wire) -> BusAtNode:
        """The bus as `node` sees it."""
        return BusAtNode(self, node, wire)

    def go_down(self) -> None:
        self.is_down = True
        for node in list(self.links):
            self.cut(node)

    def cut(self, node: str) -> None:
        link = self.links.pop(node, None)
        if link is not None:
            link.cut()

    def grow_deaf(self, node: str) -> None:
        self.deaf[node] = None
        if node in self.links:
            self.links[node].grow_deaf()

    async def latency(self) -> None:
        await trio.sleep(self._chance.uniform(0.0002, 0.003))

    def spread(self, node: str, topic: str, data: bytes) -> None:
        """Send it on its ways."""
        chance, now = self._chance, self.world.now()
        share = self.drop_nodes if topic == NODES_TOPIC else self.drop
        for name, link in self.links.items():
            if topic not in link.topics or (node in self.dark and name != node):
                continue
            if chance.random() < share:
                self.world.sometimes("bus lost")
                continue
            for _ in range(2 if chance.random() < self.repeat else 1):
                link.deliver(now + chance.uniform(0.0003, self.late_s), topic, data)


class BusAtNode:
    """A `hub.Bus`."""

    def __init__(self, bus: FaultyBus, node: str, wire: Wire) -> None:
        self._bus, self._node, self._wire = bus, node, wire

    @property
    def alone(self) -> bool:
        return False

    async def publish(self, topic: str, data: bytes) -> None:
        """Raises: BusAway."""
        if self._wire.is_cut or self._node in self._bus.mute:
            await trio.sleep_forever()
        await self._bus.latency()
        if self._bus.is_down:
            raise BusAway("the bus is down")
        self._bus.spread(self._node, topic, data)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[FaultyLink]:
        """Raises: BusAway."""
        if self._wire.is_cut:
            await trio.sleep_forever()
        await self._bus.latency()
        if self._bus.is_down:
            raise BusAway("the bus is down")
        link = self._bus.links[self._node] = FaultyLink(self._bus, self._node)
        try:
            yield link
        finally:
            link.cut()
            if self._bus.links.get(self._node) is link:
                del self._bus.links[self._node]
