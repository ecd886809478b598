"""The digest: how a node learns of entries whose publish was lost, and of nodes that died. Pure cores; time is an argument.

Once a second each node makes a numbered digest of the heads it appended. Each head is in the next REPEATS *digests*: counted, not
timed, for a node whose loop stood still for six seconds would skip heads without a gap in the numbers. The same digest goes onto
the bus and, as a row keyed (node, epoch, number), into one table, *always*: who is deaf cannot tell the others to begin writing.
A row is read only by a node that must:

- it does not hear its own digest come back (a link of its own is gone, whatever that link says of itself),
- a peer fell silent on the bus, or its numbers show a gap of more than REPEATS.

What the table cannot tell (it is away; a peer is silent there too, hence dead, or came back under a new epoch; a digest was full)
is found by a sweep: heads of the channels open here, SWEEP_BATCH a call, most recent first, with a budget. After a death, the own
one included, one more follows LATE_S later, for a write of the dead that was still on its way. Never a poll per channel.

Signals ride along, each in as many digests as a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import msgspec

PERIOD_S = 1.0
REPEATS = 5
"""Digests that name a head: so many may be lost in a row before anybody must look elsewhere."""
HEADS_MAX = 2_000
"""Heads in one digest, about 100 KiB; more: it says `full` and its readers sweep."""
HEADS_KEPT_MAX = 20_000
"""Heads that wait for their digests; above, the oldest are forgotten and the digest says `full`."""
SIGNALS_MAX = 1_000
"""Signals that wait for their digests; above, the oldest ride no more."""
LATE_S = 10.0
"""A write of a dead node may still land: it is swept for once more after this long."""
SILENT_S = 3.0
"""A node not heard for this long is deaf, mute or dead."""
FORGET_S = 30.0
"""A node silent everywhere is swept for during this long, then forgotten."""
TABLE_PERIOD_S = 0.5
"""Between two reads of the table, while it must be read."""
SWEEP_BATCH = 64
"""Heads in one call of a source."""
SWEEP_CALLS_PER_S = 20
"""Budget: 1,280 channels a second."""
SWEEP_PAUSE_S = 2.0
"""Between two sweeps that the same silence asks for."""
NEVER = -1e9


class DigestTable(Protocol):
    """One table that every node reaches over another way than the bus."""

    async def write(self, node: str, epoch: int, number: int, data: bytes) -> None:
        """Keep a row; rows older than a minute may go. Raises: TableAway. The hub sets the deadline."""
        ...

    async def since(self, seen: Mapping[str, tuple[int, int]]) -> Sequence[bytes]:
        """The rows of each node above its (epoch, number) in `seen`, all that are kept of a node not in it, in order.

        Raises: TableAway. The hub sets the deadline.
        """
        ...


class Digest(msgspec.Struct, frozen=True, array_like=True, tag="digest"):
    """What one node says of one second. `epoch`: of this start of the node, ever larger. `signals`: (number, name, data)."""

    node: str
    epoch: int
    number: int
    heads: tuple[tuple[str, int], ...] = ()
    signals: tuple[tuple[int, str, bytes], ...] = ()
    full: bool = False
    lacks: tuple[str, ...] = ()
    """What this node has to do without, in the words of whoever embeds the hub."""


@dataclass(slots=True)
class Author:
    """What this node says."""

    node: str
    epoch: int
    number: int = 0
    lacks: Callable[[], tuple[str, ...]] = tuple
    _heads: dict[str, tuple[int, int]] = field(default_factory=dict)  # channel -> tail, digests left; newest last
    _signals: dict[int, tuple[str, bytes, int]] = field(default_factory=dict)  # number -> name, data, digests left
    _forgot: bool = False

    def note(self, channel: str, tail: int) -> None:
        """An entry was appended here: in the same synchronous step in which that became known."""
        old = self._heads.pop(channel, (0, 0))[0]
        self._heads[channel] = (max(old, tail), REPEATS)
        if len(self._heads) > HEADS_KEPT_MAX:
            del self._heads[next(iter(self._heads))]
            self._forgot = True

    def tell(self, number: int, name: str, data: bytes) -> None:
        """A signal was given here."""
        self._signals[number] = (name, data, REPEATS)
        if len(self._signals) > SIGNALS_MAX:
            del self._signals[next(iter(self._signals))]

    def make(self) -> Digest:
        """The next digest. It counts as said, whether it arrives or not."""
        self.number += 1
        heads = tuple((channel, tail) for channel, (tail, _) in self._heads.items())
        signals = tuple((number, name, data) for number, (name, data, _) in self._signals.items())
        full = self._forgot or len(heads) > HEADS_MAX
        self._heads = {channel: (tail, left - 1) for channel, (tail, left) in self._heads.items() if left > 1}
        self._signals = {number: (name, data, left - 1) for number, (name, data, left) in self._signals.items() if left > 1}
        self._forgot = False
        return Digest(self.node, self.epoch, self.number, heads[-HEADS_MAX:], signals, full, self.lacks())


@dataclass(slots=True)
class Other:
    """What is known of another node."""

    epoch: int
    number: int
    """The last digest whose heads we have, from bus or table."""
    on_bus_at: float
    known_at: float
    """When it was last heard of, on bus or table."""
    heard: int = 0
    """The highest number on the bus. Far above `number`: a gap that the table, else a sweep, must fill."""
    lacks: tuple[str, ...] = ()
    _lacked: int = 0  # the number of the digest that said so

    def says(self, digest: Digest) -> None:
        """The newest word counts, whichever way it came."""
        if digest.number >= self._lacked:
            self._lacked, self.lacks = digest.number, digest.lacks

    @property
    def is_behind(self) -> bool:
        return self.heard > self.number + REPEATS


@dataclass(slots=True)
class Reader:
    """What this node concludes. After `begin`, every TABLE_PERIOD_S: `tick`, then `wants_table`, then `sweep_begins`."""

    node: str
    started_at: float = math.inf
    others: dict[str, Other] = field(default_factory=dict)
    echo_at: float = NEVER
    """When the own digest last came back over the bus."""
    _asked: int = 0  # sweeps asked for so far
    _answered: int = 0  # how many of those the sweep under way, or the last one, answers
    _sweeping: bool = False
    _swept_at: float = NEVER
    _again_at: list[float] = field(default_factory=list)  # late sweeps

    def begin(self, now: float) -> None:
        """The node starts."""
        self.started_at = now
        self._again_at.append(now + LATE_S)  # our own former life may have written too

    def tick(self, now: float) -> None:
        """Time passes."""
        while self._again_at and self._again_at[0] <= now:
            del self._again_at[0]
            self._asked += 1

    def alone(self, now: float) -> None:
        """Nobody else is on the bus: hearing nothing means nothing."""
        self.echo_at = now

    def hear(self, digest: Digest, now: float, *, by_bus: bool) -> tuple[tuple[str, int], ...]:
        """A digest arrived. The answer: heads to hint to the feeds."""
        if digest.node == self.node:
            self.echo_at = now if by_bus else self.echo_at
            return ()
        other = self.others.get(digest.node)
        if other is None or digest.epoch > other.epoch:
            self._met(digest, now, by_bus=by_bus, again=other is not None)
        elif digest.epoch == other.epoch:
            self._continued(other, digest, now, by_bus=by_bus)
        if digest.epoch == self.others[digest.node].epoch:
            self.others[digest.node].says(digest)
        self._asked += digest.full
        return digest.heads

    def _met(self, digest: Digest, now: float, *, by_bus: bool, again: bool) -> None:
        if again or digest.number > REPEATS:  # it died in between, or spoke before we listened
            self._asked += 1
            self._again_at.append(now + LATE_S)
        self.others[digest.node] = Other(digest.epoch, digest.number, now if by_bus else NEVER, now)

    def _continued(self, other: Other, digest: Digest, now: float, *, by_bus: bool) -> None:
        other.known_at = now
        if by_bus:
            other.on_bus_at, other.heard = now, max(other.heard, digest.number)
        if digest.number <= other.number + REPEATS:
            other.number = max(other.number, digest.number)
        elif not by_bus:  # the rows have a gap too
            self._asked += 1
            other.number = digest.number

    def is_deaf(self, now: float) -> bool:
        """The own digest does not come back."""
        return now - max(self.echo_at, self.started_at) > SILENT_S

    def silent(self, now: float) -> list[str]:
        """The nodes that the bus no longer brings."""
        return [name for name, other in self.others.items() if now - other.on_bus_at > SILENT_S]

    def lacked(self, now: float) -> list[tuple[str, ...]]:
        """What each other node lacks that was heard of lately, on bus or table."""
        return [other.lacks for other in self.others.values() if now - other.known_at <= SILENT_S]

    def wants_table(self, now: float) -> bool:
        return self.is_deaf(now) or bool(self.silent(now)) or any(other.is_behind for other in self.others.values())

    def since(self) -> dict[str, tuple[int, int]]:
        """What the table need not tell again."""
        return {name: (other.epoch, other.number) for name, other in self.others.items()}

    def table_read(self, rows: Iterable[Digest], now: float) -> list[tuple[str, int]]:
        """All rows above `since()`, in order. The answer: heads to hint to the feeds."""
        heads = [head for row in rows for head in self.hear(row, now, by_bus=False)]
        self._sweep_for_gaps()
        for name, other in list(self.others.items()):
            if now - other.known_at > FORGET_S:
                del self.others[name]
            elif now - other.known_at > SILENT_S:
                self._want_sweep(now)  # silent on both: dead, or cut off
        return heads

    def table_absent(self, now: float) -> None:
        """There is no table: what the bus does not bring is swept for."""
        self.table_read((), now)
        if self.is_deaf(now):
            self._want_sweep(now)

    def table_unreadable(self, now: float) -> None:
        """The table is away."""
        self._sweep_for_gaps()
        if self.is_deaf(now) or self.silent(now):
            self._want_sweep(now)

    def _sweep_for_gaps(self) -> None:
        """What the rows did not fill."""
        for other in self.others.values():
            if other.is_behind:
                self._asked += 1
                other.number = other.heard

    def _want_sweep(self, now: float) -> None:
        if not self._sweeping and self._asked == self._answered and now - self._swept_at >= SWEEP_PAUSE_S:
            self._asked += 1

    def sweep_begins(self) -> bool:
        """True: begin one now; it answers all that was asked so far. A head read before the asking would prove nothing."""
        if self._sweeping or self._asked == self._answered:
            return False
        self._sweeping, self._answered = True, self._asked
        return True

    def sweep_ended(self, now: float, *, complete: bool) -> None:
        """It is over; what could not be read is asked for again."""
        self._sweeping, self._swept_at = False, now
        self._asked += not complete


def batches(channels: Iterable[str], size: int = SWEEP_BATCH) -> Iterable[list[str]]:
    """The calls of a sweep."""
    rest = iter(channels)
    while batch := list(islice(rest, size)):
        yield batch
