"""The pump of a node: from the channels' queues to the sinks, one task switch a turn, one write a socket.

A turn takes what waits in some channels (round-robin, so much of each), joins it once per channel and makes the non-blocking
writes, with a breath every YIELD_EVERY sinks. What the publishers of one scheduling round bring therefore leaves in one write.
A socket that is in several of the turn's channels gets one write for all of them. Order is kept within each channel.

What a member may get is decided at the moment of *its* write, not when the turn began: during a breath it may have left, fallen
behind, replayed and come back (channel.py says how that is known). A member whose sink takes nothing more is not dropped here: it
stops being live and replays from its own cursor, which waits for room. Ephemeral events are what is dropped, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from operator import call
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from .channel import TURN_BYTES, Batch, Block, Channel, Load, Member, State
from .frame import EPHEMERAL, Item
from .ledger import Ledger
from .sink import SendNow

if TYPE_CHECKING:
    from .peer import Peer

YIELD_EVERY = 256
"""Sinks between two breaths of the event loop, about 0.3 ms of socket writes."""
TURN_CHANNELS = 256
"""Channels in one turn: bounds what one turn holds."""
GATHER_FROM = 256
"""Members of a channel whose turn costs more than a short wait for what is about to join it."""
GATHER_SINK_S = 3e-6
"""The wait for each member, about what its write costs: so a wait is never longer than the turn that it may save ..."""
GATHER_MAX_S = 0.005
"""... nor than this. A local commit takes about 1 ms."""


class Pump:
    """Synchronous but for `run` and `wait_room`. `on_freed(channel)` offers room again to who was refused it."""

    def __init__(self, load: Load, ledger: Ledger, *, on_freed: Callable[[Channel], None]) -> None:
        self.load = load
        self.ledger = ledger
        self._on_freed = on_freed
        self._ready: dict[Channel, None] = {}  # channels with something waiting, in turn order
        self._work: anyio.Event | None = None  # set while the task sleeps
        self._room: anyio.Event | None = None  # set while somebody waits for room
        self._more: anyio.Event | None = None  # set while a turn waits for more

    def put(self, channel: Channel, items: Sequence[Item]) -> None:
        """Queue what has room, and wake up: the turn begins when the tasks that are scheduled now have run."""
        channel.queue.extend(items)
        self._ready[channel] = None
        if self._work is not None:
            self._work.set()
            self._work = None
        if self._more is not None:
            self._more.set()
            self._more = None

    async def wait_room(self) -> None:
        """Until a turn has ended or room was given back; there may be some then. Cancellation: nothing is lost."""
        if self._room is None:
            self._room = anyio.Event()
        await self._room.wait()

    def look_for_room(self) -> None:
        """Wake who waits for room: there may be some."""
        if self._room is not None:
            self._room.set()
            self._room = None

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            if not self._ready:
                self._work = anyio.Event()
                await self._work.wait()
            await self._gather()
            for _ in self.turn():
                await checkpoint()
            if self._ready:
                await checkpoint()

    async def _gather(self) -> None:
        """Before a large turn: let what has room reserved be committed, so that it leaves in the same writes.

        Nobody waits for what has not come: a lone event costs two passes of the event loop, in which what lies in the sockets
        is read.
        """
        large = [channel for channel in islice(self._ready, TURN_CHANNELS) if len(channel.members) >= GATHER_FROM]
        if not large:
            return
        await checkpoint()
        await checkpoint()
        expected = sum(channel.waiting + channel.reserved for channel in large)
        wait_s = min(GATHER_MAX_S, GATHER_SINK_S * sum(len(channel.members) for channel in large))
        with anyio.move_on_after(wait_s):
            while sum(channel.waiting for channel in large) < expected:
                self._more = more = anyio.Event()
                await more.wait()
        self._more = None

    def turn(self) -> Iterator[None]:
        """One turn. Yields where others should run; between two yields nothing else does."""
        batches = self._begin()
        sinks = 0
        for written in self._write(batches):
            sinks += written
            if sinks >= YIELD_EVERY:
                sinks = 0
                yield
        self._end(batches)

    def _begin(self) -> list[Batch]:
        batches = []
        for channel in list(islice(self._ready, TURN_CHANNELS)):
            del self._ready[channel]
            if channel.queue:
                batches.append(channel.next_batch())
            if channel.queue:
                self._ready[channel] = None  # to the end of the round
        return batches

    def _end(self, batches: list[Batch]) -> None:
        for batch in batches:
            batch.channel.tidy()
            batch.channel.give_back(batch.count, batch.size)
        starved, self.load.starved = self.load.starved, {}
        for channel in starved:
            self._on_freed(channel)
        self.look_for_room()

    def _write(self, batches: list[Batch]) -> Iterator[int]:
        """All writes of a turn, each one synchronous step; yields how many sinks it served.

        Sockets in several channels come first, then the blocks of each channel, then its slow members: whoever leaves a block
        unserved during a breath is among the slow when their time comes.
        """
        for peer, parts in self._shared(batches).items():
            yield self._write_parts(peer, parts)
        for batch in batches:
            self._count_absent(batch)
            if not batch.items:
                continue
            for block in batch.channel.blocks:  # also those that are added during a breath
                if block.turn < batch.turn:
                    yield self._write_block(block, batch)
            for member in list(batch.channel.slow):
                if member.state is State.LIVE and member.turn < batch.turn:
                    yield self._offer(member, batch)

    def _shared(self, batches: list[Batch]) -> dict[Peer, list[Batch]]:
        """The sockets that stand in more than one of these channels, with what each turn has for them."""
        if len(batches) < 2:
            return {}
        counts = Counter(chain.from_iterable(block.sends for batch in batches for block in batch.channel.blocks))
        shared: dict[Peer, list[Batch]] = {peer: [] for peer, count in counts.items() if count > 1}
        if shared:
            for batch in batches:
                if batch.items:
                    for block in batch.channel.blocks:
                        for peer in [peer for peer in block.sends if peer in shared]:
                            shared[peer].append(batch)
        return shared

    def _write_parts(self, peer: Peer, parts: list[Batch]) -> int:
        """One write for several channels, more only for very large ones. Not all taken: the socket is slow for the rest."""
        data: list[bytes] = []
        size = frames = 0
        for batch in parts:
            if batch.channel.claim(peer, batch):
                part = batch.data
                data.append(part)
                size += len(part)
                frames += len(batch.items)
            if size >= TURN_BYTES:
                self._send(peer, b"".join(data), frames)
                data, size, frames = [], 0, 0
        if data:
            self._send(peer, b"".join(data), frames)
        return 1

    def _send(self, peer: Peer, data: bytes, frames: int) -> None:
        send_now = peer.direct
        assert send_now is not None, "claimed, but busy"
        (taken,) = each((send_now,), data)
        self._sent(peer, data, frames, taken)

    def _write_block(self, block: Block, batch: Batch) -> int:
        data, frames = batch.data, len(batch.items)
        block.turn, block.written = batch.turn, batch.end
        taken = each(list(block.sends.values()), data)
        whole = taken.count(len(data))
        if whole == len(taken):
            self.ledger.handed(whole * frames)
        else:  # only now look at single sockets
            for peer, answer in zip(list(block.sends), taken, strict=True):
                self._sent(peer, data, frames, answer)
        return len(taken)

    def _sent(self, peer: Peer, data: bytes, frames: int, taken: int | OSError) -> None:
        if isinstance(taken, OSError):
            self.ledger.lost("disconnected", frames)
            peer.broken(taken)
        elif taken == len(data):
            self.ledger.handed(frames)
        else:
            peer.keep(memoryview(data)[taken:] if taken else data, frames)

    def _offer(self, member: Member, batch: Batch) -> int:
        """One by one. The ladder: ephemeral events are dropped first, then the member stops being live."""
        member.turn = batch.turn
        for run in batch.runs(member.cursor):
            if member.state is not State.LIVE:
                break  # its sink ended it while it was offered to
            if member.peer.offer(run.frames, droppable=run.droppable):
                if not run.droppable:
                    member.cursor = run.last
            elif run.droppable:
                member.peer.refused("slow", len(run.frames))
            else:
                self._fall_behind(member)
        batch.channel.speed_up(member)
        return 1

    def _fall_behind(self, member: Member) -> None:
        """No room: from here on its replay waits for it."""
        member.channel.fall_behind(member)
        self.ledger.fell_behind += 1
        member.peer.catch_up(member)

    def _count_absent(self, batch: Batch) -> None:
        """Ephemeral events that a newer one replaced, and those that members who are catching up do not get."""
        channel = batch.channel
        if batch.count > len(batch.items):
            self.ledger.lost("coalesced", (batch.count - len(batch.items)) * len(channel.members))
        if absent := len(channel.members) - channel.live:
            ephemeral = sum(item.sequence == EPHEMERAL for item in batch.items)
            self.ledger.lost("behind", ephemeral * absent)


def each(sends: Sequence[SendNow], data: bytes) -> list[int | OSError]:
    """What each `send` answered, in order: bytes taken, 0 for would-block, or what it raised.

    `map` with `operator.call` runs no bytecode per socket. It goes on behind an exception, and `extend` keeps what it had.
    """
    taken: list[int | OSError] = []
    calls = map(call, sends, repeat(data))
    while True:
        try:
            taken.extend(calls)
            return taken
        except BlockingIOError:
            taken.append(0)
        except OSError as error:
            taken.append(error)
