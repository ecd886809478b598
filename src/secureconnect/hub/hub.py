"""The hub: everything that happens in channels, to everybody who is in them, on every node, in order and once.

    async with anyio.create_task_group() as tasks:
        hub = Hub(node="a", random=random.random)
        await tasks.start(hub.run)
        peer = hub.connect(sink)
        await peer.prepare("room:1")
        peer.start(["room:1"])
        hub.publish("room:1", "said", b'{"text":"hello"}')

Channels whose name begins with the prefix of a source have a log behind them: what is appended there is committed here, and
reaches every member once, in the order of its numbers, whatever a bus loses (feed.py, digest.py). All others keep a short history
of their own. This module only puts the parts together; each part says in its first lines what it is for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskStatus

from .bus import Bus
from .channel import Load
from .channels import Channels
from .digest import Author, DigestTable
from .errands import Errands, Timers
from .frame import Frame, Item, history_frame
from .ledger import HubStatistics, Ledger
from .limits import Limits
from .peer import Peer
from .relay import Relay
from .replay import Replays
from .room import Reservation, reserve
from .signals import Signals
from .sink import Sink
from .source import Source
from .watch import Watch
from .wire import CHANNEL_TOPIC, NODES_TOPIC, Body, Entries, Ephemeral, Event, Signalled


class Hub:
    """One per node. Its methods belong to one event loop; all but `run` and `reserve` are synchronous and return at once.

    `node`: a name that no other node on the bus has. `epoch`: of this start of the node, larger than that of every earlier one.
    `sources`: the logs, by the beginning of the channels' names. `bus`, `digests`: how nodes hear of each other; None: alone.
    `random`: uniform in [0, 1), for jitter. `lacks`: what this node has to do without, told to the others each second.
    """

    def __init__(
        self, *, node: str, random: Callable[[], float], limits: Limits | None = None,
        sources: Mapping[str, Source] | None = None, bus: Bus | None = None, digests: DigestTable | None = None, epoch: int = 0,
        lacks: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:  # fmt: skip
        self.node = node
        self.epoch = epoch
        self.limits = limits = limits or Limits()
        self.ledger = Ledger()
        self._load = Load(limits.queue_bytes_max)
        self._errands, self._timers = Errands(), Timers()
        self._life = f"{zlib.crc32(f'{node}/{epoch}/{random()}'.encode()):08x}"
        self._histories = 0
        self._channels = Channels(
            limits, sources or {}, self.ledger, self._load, errands=self._errands, timers=self._timers, epochs=self._new_epoch
        )
        self._replays = Replays(self._channels, self.ledger, limits, self._errands, random=random)
        self._signals = Signals()
        self._on_bus: list[Callable[[bool], None]] = []
        self._watch = Watch(
            Author(node, epoch, lacks=lacks),
            self._channels,
            signals=self._signals,
            table=digests,
            errands=self._errands,
            limits=limits,
        )
        self._relay = None
        if bus is not None:
            self._relay = Relay(
                node, bus, self._channels, signals=self._signals, on_digest=self._watch.hear, limits=limits, random=random
            )
            self._watch.relay = self._relay
            self._watch.on_bus = self._relay.on_bus = self._tell_of_bus

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own every task of the hub. What was asked for before, is done. Cancellation: ends them; nothing more is delivered."""
        async with anyio.create_task_group() as tasks:
            self._watch.begin()
            for task in (self._errands.run, self._timers.run, self._channels.pump.run, self._watch.tell, self._watch.run):
                tasks.start_soon(task)
            if self._relay is not None:
                for task in (self._relay.publish, self._relay.subscribe, self._relay.tune):
                    tasks.start_soon(task)
            task_status.started()

    # -- events

    async def reserve(self, channel: str) -> Reservation:
        """Room for one event before it is appended: `with await hub.reserve(channel): append, commit`.

        Waits up to `Limits.reserve_wait_s`, then raises Full, with nothing stored. Free where the channel is not open.
        Cancellation: nothing is held.
        """
        return await reserve(self._channels, channel, wait_s=self.limits.reserve_wait_s)

    def commit(self, channel: str, items: Sequence[Item]) -> None:
        """Entries that were appended to the channel's log here, ascending. One synchronous step that cannot fail.

        From here on they reach every member on every node, each once and in order, also when every message about them is lost.
        """
        if not items:
            return
        assert self._channels.source(channel) is not None, f"{channel} has no log"
        self._watch.author.note(channel, items[-1].sequence)
        self._channels.offer(channel, items)
        if self._is_heard:
            entries = tuple((item.sequence, item.frame.event, item.frame.payload) for item in items)
            self._say(CHANNEL_TOPIC + channel, Entries(entries), size=sum(len(payload) for _, _, payload in entries))

    def publish(self, channel: str, event: str, data: bytes) -> str:
        """An event in a channel without a log; `data` is JSON. It is kept for `Limits.history_s` on every node where it is open.

        The answer is its position here: "" when the channel is not open here, for then nobody can hold a position to resume from.
        Over the bus it is sent once: who misses it there is told of a gap when the link comes back.
        """
        position = self._channels.publish(channel, event, lambda at: history_frame(channel, event, position=at, data=data))
        if self._is_heard:
            self._say(CHANNEL_TOPIC + channel, Event(event, data), size=len(data))
        return position

    def send(self, channel: str, frame: Frame, *, coalesce: str | None = None) -> None:
        """An ephemeral event to who is live now, on every node: no history, dropped first.

        `coalesce`: while it waits, a newer one with the same word takes its place.
        """
        if coalesce is not None:
            frame.coalesce = coalesce
        self._channels.send(channel, frame)
        if self._is_heard:
            said = Ephemeral(frame.event, frame.payload, frame.coalesce)
            self._say(CHANNEL_TOPIC + channel, said, size=len(frame.payload))

    def signal(self, name: str, data: bytes) -> None:
        """A word to every node. This one's handlers have run on return; the others hear it within 2 s while bus or table work."""
        number = self._signals.give(name, data)
        self._watch.author.tell(number, name, data)
        if self._is_heard:
            self._say(NODES_TOPIC, Signalled(self.epoch, number, name, data), size=len(data))

    def on_signal(self, name: str, handler: Callable[[bytes], None]) -> None:
        """Call `handler(data)` for every signal of this name, synchronously. It must not raise."""
        self._signals.on(name, handler)

    def on_bus(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(False)` whenever the bus refused, ended or lost something, `listener(True)` for each own word that came
        back over it, about once a second; neither while nobody else is on it. It must not raise."""
        self._on_bus.append(listener)

    def others_lack(self) -> list[tuple[str, ...]]:
        """What each other node that was heard lately, on the bus or in the table, has to do without."""
        return self._watch.reader.lacked(anyio.current_time())

    # -- connections

    def connect(self, sink: Sink, *, polls: bool = False) -> Peer:
        """A connection. Its owner closes the peer when it ends. `polls`: its events are counted as polled, not as delivered."""
        peer = Peer(sink, self._replays, polls=polls)
        self._replays.peers[peer] = None
        attach = getattr(sink, "attach", None)
        if attach is not None:
            attach(peer)
        return peer

    def members(self, channel: str) -> Sequence[Peer]:
        """The roster of a channel on this node, in the order of joining."""
        there = self._channels.by_name.get(channel)
        return tuple(there.members) if there is not None else ()

    # -- figures

    @property
    def others(self) -> int:
        """Nodes that this one hears of, itself not among them."""
        return len(self._watch.reader.others)

    def statistics(self) -> HubStatistics:
        """A look at it. Costs a pass over the channels."""
        channels, relay = self._channels, self._relay
        depths = [channel.waiting for channel in channels.by_name.values()]
        return HubStatistics(
            channels=len(depths),
            peers=len(self._replays.peers),
            places=sum(len(channel.members) for channel in channels.by_name.values()),
            behind=self._replays.running,
            queued=sum(depths),
            queued_max=max(depths, default=0),
            queued_bytes=self._load.bytes,
            queue_max=self.limits.queue_max,
            queue_bytes_max=self.limits.queue_bytes_max,
            full_total=self._load.full_total,
            held=sum(len(channel.feed.held) for channel in channels.by_name.values() if channel.feed is not None),
            reads_total=channels.reads_total,
            reads_failed_total=channels.reads_failed_total,
            bus_waiting=relay.outgoing.waiting if relay else 0,
            bus_lost_total=relay.outgoing.lost if relay else 0,
            bus_failed_total=relay.failed if relay else 0,
            bus_unknown_total=relay.unknown if relay else 0,
            bus_connected=relay is not None and relay.link is not None,
            rows_failed_total=self._watch.rows_failed,
            rows_unknown_total=self._watch.rows_unknown,
            sweeps_total=self._watch.sweeps,
            others={name: other.epoch for name, other in self._watch.reader.others.items()},
        )

    # -- inside

    def _tell_of_bus(self, is_well: bool) -> None:
        for listener in self._on_bus:
            listener(is_well)

    @property
    def _is_heard(self) -> bool:
        """Somebody else may be listening: what happens here must be encoded and said."""
        return self._relay is not None and not self._relay.bus.alone

    def _say(self, topic: str, body: Body, *, size: int) -> None:
        assert self._relay is not None, "said to nobody"
        self._relay.say(topic, body, size=size)

    def _new_epoch(self) -> str:
        """Of a history: unique to this life of the node and opening of the channel. Without `:` and `,`: it goes into URLs."""
        self._histories += 1
        return f"{self._life}{self._histories:x}"
