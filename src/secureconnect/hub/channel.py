"""A channel on this node: what waits in it, who is in it, and how far each member is.

Where a member's cursor lives decides what a delivery costs. Members whose socket takes everything at once stand together in
*blocks*: everybody in a block is equally far, so a turn writes a block and moves one number, and no bytecode runs per member.
Everybody else has a cursor of its own. A member is in exactly one state:

- SILENT: it has its place, and takes nothing until it is started.
- BEHIND: a replay brings it up from its own cursor; the replay alone moves that cursor.
- LIVE: served one by one, because its sink is a queue or a busy socket, or because it is ahead of the pump.
- DIRECT: live and in a block.
- GONE: left. Who comes back is another Member.

Each turn of the pump in a channel has a number. Blocks and live members carry the number of the last turn that they have had,
so a member that moves between them while a turn breathes is served exactly once, whatever it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING

from .feed import Feed
from .frame import EPHEMERAL, Frame, Item
from .history import History
from .sink import SendNow
from .source import Source

if TYPE_CHECKING:
    from .peer import Peer

BLOCK = 256
"""Sockets of a block: what is written between two breaths of the event loop, about 0.3 ms."""
TURN_ITEMS = 256
"""Events of one channel in one turn, so that a hot room cannot starve the others ..."""
TURN_BYTES = 256 << 10
"""... and bytes (a large event goes alone): a socket that takes nothing keeps no more than this over its outbox."""


class State(Enum):
    """Where a member stands in its channel: how, and whether, the pump writes to it."""

    SILENT = "silent"
    BEHIND = "behind"
    LIVE = "live"
    DIRECT = "direct"
    GONE = "gone"


class Member:
    """One peer in one channel. `cursor` and `turn` are its own unless it is DIRECT; then its block has them.

    `began`: everything behind it was delivered to this member, or will be. `gap`, when set, must be told before anything else:
    its sequence is where the events go on.
    """

    __slots__ = ("began", "channel", "cursor", "gap", "peer", "state", "turn")

    def __init__(self, channel: Channel, peer: Peer, cursor: int) -> None:
        self.channel = channel
        self.peer = peer
        self.cursor = self.began = cursor
        self.turn = channel.turn
        self.state = State.SILENT
        self.gap: Item | None = None

    def __repr__(self) -> str:
        return f"<Member of {self.channel.name}: {self.state.value} at {self.cursor}>"


class Block:
    """Up to BLOCK members whose sockets are idle and who are equally far."""

    __slots__ = ("sends", "turn", "written")

    def __init__(self, written: int, turn: int) -> None:
        self.sends: dict[Peer, SendNow] = {}
        self.written = written
        self.turn = turn


@dataclass(slots=True)
class Load:
    """What waits in all channels together, against its bound."""

    bytes_max: int
    bytes: int = 0
    full_total: int = 0
    starved: dict[Channel, None] = field(default_factory=dict)
    """Channels that were refused room and must be told when there is some."""


class Channel:
    """Its queue is the `Room` of its feed: what passes the feed is in the queue in the same step."""

    __slots__ = (
        "_latest", "blocks", "feed", "first", "heard", "history", "holds", "load", "members", "name", "queue", "queue_max",
        "reserved", "slow", "source", "turn", "unused_since", "waiting", "wake_at", "written",
    )  # fmt: skip

    def __init__(self, name: str, load: Load, *, queue_max: int, source: Source | None, history: History | None) -> None:
        assert (source is None) is not (history is None), "a channel has a log or keeps its own history"
        self.name = name
        self.load = load
        self.queue_max = queue_max
        self.source = source
        self.history = history
        self.feed = Feed(self) if source is not None else None
        self.first = 1
        """The lowest number that the log was last seen to keep."""
        self.members: dict[Peer, Member] = {}
        self.blocks: list[Block] = []
        self.slow: dict[Member, None] = {}
        self.queue: list[Item] = []
        self.waiting = 0
        """Events in the queue and in the batch under way."""
        self.written = 0
        """Where the last turn ends, also while it is under way."""
        self.turn = 0
        self.reserved = 0
        self.holds = 0
        """Who needs it open without being a member."""
        self.heard = False
        """The bus has confirmed the subscription, or need not."""
        self.unused_since: float | None = None
        self.wake_at: float | None = None
        """When the feed's timer is due."""
        self._latest: dict[str, Frame] | None = None

    @property
    def cursor(self) -> int | None:
        """What has passed on to the pump: who has all up to here is live. None: the log's tail is not known yet."""
        return self.feed.cursor if self.feed is not None else self.history.cursor if self.history is not None else None

    @property
    def live(self) -> int:
        return len(self.slow) + sum(len(block.sends) for block in self.blocks)

    # -- room

    def left(self) -> int:
        """As `feed.Room`."""
        return 0 if self.load.bytes >= self.load.bytes_max else self.queue_max - self.waiting

    def take(self, item: Item) -> bool:
        """As `feed.Room`. An empty hub takes anything, or one event over the bound would wait for ever."""
        size = len(item.frame.payload)
        if self.waiting >= self.queue_max or (self.load.bytes and self.load.bytes + size > self.load.bytes_max):
            self.load.full_total += 1
            return False
        self.waiting += 1
        self.load.bytes += size
        return True

    def take_ephemeral(self, item: Item) -> bool:
        """Half of the queue is for what has a number."""
        if self.waiting * 2 >= self.queue_max:
            self.load.full_total += 1
            return False
        if not self.take(item):
            return False
        if item.frame.coalesce is not None:
            self._latest = self._latest or {}
            self._latest[item.frame.coalesce] = item.frame
        return True

    def give_back(self, count: int, size: int) -> None:
        self.waiting -= count
        self.load.bytes -= size

    # -- turns

    def next_batch(self) -> Batch:
        """Begin a turn: take what it brings out of the queue. The batch's room is given back when the turn ends."""
        items: list[Item] = []
        count = size = 0
        for item in self.queue:
            if len(items) == TURN_ITEMS or size >= TURN_BYTES:
                break
            count += 1
            size += len(item.frame.payload)
            if item.sequence != EPHEMERAL or self._is_newest(item.frame):
                items.append(item)
        self.queue = self.queue[count:]
        self.turn += bool(items)
        batch = Batch(self, items, count=count, size=size)
        self.written = batch.end
        return batch

    def _is_newest(self, frame: Frame) -> bool:
        if frame.coalesce is None or self._latest is None:
            return True
        if self._latest.get(frame.coalesce) is not frame:
            return False
        del self._latest[frame.coalesce]
        return True

    def tidy(self) -> None:
        """After a turn: no empty blocks, and neighbours that fit into one are one."""
        if len(self.blocks) == 1 and self.blocks[0].sends:
            return
        kept: list[Block] = []
        for block in self.blocks:
            if not block.sends:
                continue
            assert (block.turn, block.written) == (self.turn, self.written), "a turn has passed a block over"
            if kept and len(kept[-1].sends) + len(block.sends) <= BLOCK:
                kept[-1].sends.update(block.sends)
            else:
                kept.append(block)
        self.blocks = kept

    # -- members

    def join(self, peer: Peer, cursor: int) -> Member:
        """Take a place, silent, behind `cursor`."""
        assert peer not in self.members, "one place per peer"
        member = self.members[peer] = Member(self, peer, cursor)
        return member

    def leave(self, member: Member) -> None:
        self._lift(member)
        member.state = State.GONE
        del self.members[member.peer]

    def reached(self, member: Member) -> int:
        """The last number that this member has."""
        block = self.block_of(member.peer) if member.state is State.DIRECT else None
        return member.cursor if block is None else block.written

    def go_live(self, member: Member) -> None:
        """It has everything that passed so far: in the same synchronous step it takes what passes next."""
        assert self.cursor is not None, "live before the feed is open"
        assert member.cursor >= self.cursor, "live with something missing"
        member.state, member.turn = State.LIVE, self.turn
        self.slow[member] = None
        self.speed_up(member)

    def fall_behind(self, member: Member) -> None:
        self._lift(member)
        member.state = State.BEHIND

    def slow_down(self, member: Member) -> None:
        """Its socket is busy: from here on it is offered to."""
        if member.state is State.DIRECT:
            self._lift(member)
            member.state = State.LIVE
            self.slow[member] = None

    def speed_up(self, member: Member) -> None:
        """Its socket is idle: into a block, if it is exactly where the last turn ends."""
        send_now = member.peer.direct
        if send_now is None or member.state is not State.LIVE or member.cursor != self.written or member.turn != self.turn:
            return
        del self.slow[member]
        member.state = State.DIRECT
        self._present_block().sends[member.peer] = send_now

    def claim(self, peer: Peer, batch: Batch) -> bool:
        """Move a direct member past a batch that the caller is about to write to it; False: the batch is not its to write."""
        block = self.block_of(peer)
        if block is None or block.turn >= batch.turn:
            return False
        self._present_block().sends[peer] = block.sends.pop(peer)
        return True

    def block_of(self, peer: Peer) -> Block | None:
        for block in self.blocks:  # few; a loop costs half of a generator
            if peer in block.sends:
                return block
        return None

    def move_all(self, gap: Item) -> list[Member]:
        """Everybody goes on behind `gap`, and what waits in the queue is dropped. The answer: those who must be told now."""
        size = sum(len(item.frame.payload) for item in self.queue)
        self.give_back(len(self.queue), size)
        self.queue = []
        self.written, self.turn = gap.sequence, self.turn + 1
        told = []
        for member in self.members.values():
            self._lift(member)
            member.cursor = member.began = gap.sequence
            member.gap = gap
            if member.state is not State.SILENT:
                member.state = State.BEHIND
                told.append(member)
        return told

    def _lift(self, member: Member) -> None:
        """Take it out of block or list, with its cursor."""
        if member.state is State.DIRECT:
            block = self.block_of(member.peer)
            assert block is not None, "direct, but in no block"
            del block.sends[member.peer]
            member.cursor, member.turn = block.written, block.turn
        elif member.state is State.LIVE:
            del self.slow[member]

    def _present_block(self) -> Block:
        """One with room whose members have had the last turn."""
        last = self.blocks[-1] if self.blocks else None
        if last is None or last.turn != self.turn or len(last.sends) >= BLOCK:
            last = Block(self.written, self.turn)
            self.blocks.append(last)
        return last


class Batch:
    """What one turn brings to one channel: the events after `start` up to `end`, and ephemeral ones between them."""

    __slots__ = ("_data", "_runs", "channel", "count", "end", "items", "size", "start", "turn")

    def __init__(self, channel: Channel, items: list[Item], *, count: int, size: int) -> None:
        self.channel = channel
        self.items = items
        self.count = count
        self.size = size
        self.turn = channel.turn
        self.start = channel.written
        self.end = next((item.sequence for item in reversed(items) if item.sequence != EPHEMERAL), self.start)
        self._data: bytes | None = None
        self._runs: list[Run] | None = None

    @property
    def data(self) -> bytes:
        """All of it as WebSocket frames, joined once for every socket."""
        if self._data is None:
            frames = [item.frame.ws for item in self.items]
            self._data = frames[0] if len(frames) == 1 else b"".join(frames)
        return self._data

    def runs(self, cursor: int) -> Iterable[Run]:
        """What of it is for a member at `cursor`."""
        if cursor != self.start:
            return _runs(item for item in self.items if item.sequence == EPHEMERAL or item.sequence > cursor)
        if self._runs is None:
            self._runs = list(_runs(self.items))
        return self._runs


@dataclass(frozen=True, slots=True)
class Run:
    """Events in a row that are all numbered, up to `last`, or all ephemeral."""

    frames: list[Frame]
    droppable: bool
    last: int


def _runs(items: Iterable[Item]) -> Iterator[Run]:
    for droppable, group in groupby(items, lambda item: item.sequence == EPHEMERAL):
        run = list(group)
        yield Run([item.frame for item in run], droppable, run[-1].sequence)
