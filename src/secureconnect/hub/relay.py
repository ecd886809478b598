"""The bus side of a hub: what is said here goes out, what others say comes in, and the link is made again when it ends.

Three tasks: the publisher (in order per topic, what waits for one topic together in one message), the subscriber (one link at a
time), and the tuner, which makes the link listen to exactly the channels that are open. Nothing here is waited for by whoever
publishes an event: when the bus takes nothing, the oldest messages are dropped and the digest repairs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice

import anyio

from .bus import Bus, Link
from .channel import Channel
from .channels import Channels
from .digest import Digest
from .errors import BusAway
from .feed import pause_s
from .frame import Frame, Item, history_frame
from .limits import Limits
from .signals import Signals
from .wire import (
    CHANNEL_TOPIC,
    NODES_TOPIC,
    Body,
    Entries,
    Ephemeral,
    Event,
    Signalled,
    UnknownMessage,
    decode,
    encode,
    prefix,
)

LISTEN_BATCH = 1_000
"""Topics in one call: a few ms of a server's time."""
JOINED_MAX = 128
"""Bodies in one message; with the largest events still a few MiB."""


class Outgoing:
    """What waits for the bus, by topic; topics in turn, what the nodes must hear first. Pure."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.waiting = 0
        self.bytes = 0
        self.lost = 0
        self._count_max, self._bytes_max = count_max, bytes_max
        self._topics: dict[str, list[tuple[Body, int]]] = {}

    def put(self, topic: str, body: Body, *, size: int = 0) -> None:
        """Queue it. Too much waiting: topics lose their oldest, the one whose turn is next first."""
        self._topics.setdefault(topic, []).append((body, size))
        self.waiting += 1
        self.bytes += size
        while self.waiting > self._count_max or (self.bytes > self._bytes_max and self.waiting > 1):
            self.lost += 1
            self._take(next(iter(self._topics)), 1)

    def take(self) -> tuple[str, list[Body]] | None:
        """The next message."""
        if not self._topics:
            return None
        topic = NODES_TOPIC if NODES_TOPIC in self._topics else next(iter(self._topics))
        return topic, self._take(topic, JOINED_MAX)

    def _take(self, topic: str, count: int) -> list[Body]:
        waiting = self._topics.pop(topic)
        taken = waiting[:count]
        if len(waiting) > count:
            self._topics[topic] = waiting[count:]
        self.waiting -= len(taken)
        self.bytes -= sum(size for _, size in taken)
        return [body for body, _ in taken]


class Tuning:
    """Which topics a link should listen to, and does. Pure.

    A step takes some topics and is confirmed or not; what changed its mind meanwhile is seen to in the next one.
    """

    def __init__(self) -> None:
        self.wanted: dict[str, Channel | None] = {NODES_TOPIC: None}
        self._missing: dict[str, None] = {NODES_TOPIC: None}
        self._stale: dict[str, None] = {}
        self._heard: dict[str, None] = {}

    def want(self, topic: str, channel: Channel) -> bool:
        """Whether it is heard already."""
        self.wanted[topic] = channel
        self._stale.pop(topic, None)
        if topic in self._heard:
            return True
        self._missing[topic] = None
        return False

    def unwant(self, topic: str) -> None:
        del self.wanted[topic]
        self._missing.pop(topic, None)
        if topic in self._heard:
            self._stale[topic] = None

    def start_over(self) -> None:
        """A new link hears nothing yet."""
        self._missing, self._stale, self._heard = dict.fromkeys(self.wanted), {}, {}

    @property
    def is_done(self) -> bool:
        return not self._missing and not self._stale

    def to_listen(self) -> list[str]:
        return list(islice(self._missing, LISTEN_BATCH))

    def listened(self, topics: Iterable[str]) -> list[Channel]:
        """These are confirmed. The answer: the channels that are heard now."""
        channels = []
        for topic in topics:
            self._heard[topic] = None
            self._missing.pop(topic, None)
            if topic not in self.wanted:
                self._stale[topic] = None
            elif (channel := self.wanted[topic]) is not None:
                channels.append(channel)
        return channels

    def to_unlisten(self) -> list[str]:
        """These are not heard from here on, whatever the link still brings."""
        topics = list(islice(self._stale, LISTEN_BATCH))
        for topic in topics:
            del self._stale[topic], self._heard[topic]
        return topics


class Relay:
    """Made only where there is a bus. `on_digest` learns of digests, the own ones too; `signals` acts on those of others."""

    def __init__(
        self, node: str, bus: Bus, channels: Channels, *, signals: Signals, on_digest: Callable[[Digest], None], limits: Limits,
        random: Callable[[], float],
    ) -> None:  # fmt: skip
        self.bus = bus
        self.link: Link | None = None
        self.linked_at = -math.inf
        self.failed = self.unknown = 0
        self.outgoing = Outgoing(count_max=limits.bus_queue_max, bytes_max=limits.bus_queue_bytes_max)
        self._node, self._prefix = node, prefix(node)
        self._channels, self._signals, self._on_digest = channels, signals, on_digest
        self._limits, self._random = limits, random
        self._tuning = Tuning()
        self._is_away = False
        self.on_bus: Callable[[bool], None] = lambda is_well: None
        self._publishes: anyio.Event | None = None
        self._tunes: anyio.Event | None = None
        self._link_scope: anyio.CancelScope | None = None
        channels.listen, channels.unlisten = self._want, self._unwant

    # -- out

    def say(self, topic: str, body: Body, *, size: int = 0) -> None:
        """Publish soon."""
        self.outgoing.put(topic, body, size=size)
        if self._publishes is not None:
            self._publishes.set()
            self._publishes = None

    async def publish(self) -> None:
        """Task: one message at a time."""
        while True:
            message = self.outgoing.take()
            if message is None:
                self._publishes = anyio.Event()
                await self._publishes.wait()
                continue
            topic, bodies = message
            try:
                with anyio.fail_after(self._limits.bus_deadline_s):
                    await self.bus.publish(topic, encode(self._prefix, bodies))
            except (BusAway, TimeoutError):
                self.failed += 1
                self.on_bus(False)

    # -- in

    async def subscribe(self) -> None:
        """Task: one link after the other."""
        failures = 0
        while True:
            with anyio.CancelScope(deadline=anyio.current_time() + self._limits.bus_deadline_s) as scope:
                self._link_scope = scope
                try:
                    async with self.bus.subscribe() as link:
                        scope.deadline = math.inf
                        failures = 0
                        await self._receive(link)
                except BusAway:
                    pass
            self._link_scope = None
            self._lost_link()
            failures += 1
            await anyio.sleep(pause_s(failures) * (0.5 + self._random()))

    def relink(self) -> None:
        """The link is of no use, whatever it says of itself: make a new one."""
        if self._link_scope is not None:
            self._link_scope.cancel()

    async def _receive(self, link: Link) -> None:
        """Until the link is cut."""
        self.link, self.linked_at, self._is_away = link, anyio.current_time(), False
        self._tune_soon()
        own = self._prefix
        while True:
            try:
                topic, data = await link.receive()
            except BusAway:
                return
            if topic == NODES_TOPIC or not data.startswith(own):
                self._hear(topic, data)

    def _lost_link(self) -> None:
        self.link, self._is_away = None, True
        self.on_bus(False)
        self._tuning.start_over()
        for channel in list(self._tuning.wanted.values()):
            if channel is not None:
                self._channels.heard(channel)  # a bus that is away must not keep a channel shut

    def _hear(self, topic: str, data: bytes) -> None:
        try:
            node, bodies = decode(data)
        except UnknownMessage:
            self.unknown += 1
            return
        for body in bodies:
            if topic == NODES_TOPIC:
                self._hear_node(node, body)
            else:
                self._hear_event(topic.removeprefix(CHANNEL_TOPIC), body)

    def _hear_node(self, node: str, body: Body) -> None:
        if isinstance(body, Digest):
            self._on_digest(body)
        elif isinstance(body, Signalled) and node != self._node:
            self._signals.hear(node, body.epoch, ((body.number, body.name, body.data),))

    def _hear_event(self, name: str, body: Body) -> None:
        if isinstance(body, Entries):
            items = [Item(n, Frame(payload, name, event, n)) for n, event, payload in body.items]
            self._channels.offer(name, items)
        elif isinstance(body, Ephemeral):
            self._channels.send(name, Frame(body.payload, name, body.event, coalesce=body.coalesce))
        elif isinstance(body, Event) and self._channels.source(name) is None:
            self._channels.publish(name, body.event, _history_maker(name, body))

    # -- which topics

    def _want(self, channel: Channel) -> None:
        if self._tuning.want(CHANNEL_TOPIC + channel.name, channel) or self._is_away:
            self._channels.heard(channel)
        self._tune_soon()

    def _unwant(self, channel: Channel) -> None:
        self._tuning.unwant(CHANNEL_TOPIC + channel.name)
        self._tune_soon()

    def _tune_soon(self) -> None:
        if self._tunes is not None:
            self._tunes.set()
            self._tunes = None

    async def tune(self) -> None:
        """Task: keep the link at what is wanted."""
        while True:
            link = self.link
            if link is None or self._tuning.is_done:
                self._tunes = anyio.Event()
                await self._tunes.wait()
                continue
            try:
                with anyio.fail_after(self._limits.bus_deadline_s):
                    await self._tune(link)
            except (BusAway, TimeoutError):
                if self.link is link:
                    self.link = None
                    self.relink()

    async def _tune(self, link: Link) -> None:
        """One step: some more topics, or some fewer."""
        topics = self._tuning.to_listen()
        if not topics:
            return await link.unlisten(self._tuning.to_unlisten())
        await link.listen(topics)
        if self.link is link:
            for channel in self._tuning.listened(topics):
                self._channels.regained(channel)
        return None


def _history_maker(name: str, body: Event) -> Callable[[str], Frame]:
    return lambda position: history_frame(name, body.event, position=position, data=body.data)
