"""The digest's shell: what this node says each second, what it concludes each half second, and the sweeps that follow from it.

It runs with and without a bus: a node that is alone still sweeps once for the writes of its own former life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import anyio
import msgspec

from .channels import Channels
from .digest import PERIOD_S, SILENT_S, SWEEP_CALLS_PER_S, TABLE_PERIOD_S, Author, Digest, DigestTable, Reader, batches
from .errands import Errands
from .errors import SourceAway, TableAway
from .limits import Limits
from .relay import Relay
from .signals import Signals
from .wire import NODES_TOPIC

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Digest)


class Watch:
    """Two tasks, `tell` and `run`, after `begin`. `table` and `relay` are None where there is none."""

    def __init__(
        self, author: Author, channels: Channels, *, signals: Signals, table: DigestTable | None, errands: Errands, limits: Limits
    ) -> None:
        self.author = author
        self.reader = Reader(author.node)
        self.relay: Relay | None = None
        self.sweeps = 0
        self.rows_failed = self.rows_unknown = 0
        self._channels, self._signals, self._table = channels, signals, table
        self._errands, self._limits = errands, limits
        self.on_bus: Callable[[bool], None] = lambda is_well: None

    def begin(self) -> None:
        """The node starts now."""
        self.reader.begin(anyio.current_time())

    def hear(self, digest: Digest, *, by_bus: bool = True) -> None:
        """A digest arrived."""
        self._hint(self.reader.hear(digest, anyio.current_time(), by_bus=by_bus))
        self._act(digest)
        if by_bus and (digest.node, digest.epoch) == (self.author.node, self.author.epoch):
            self.on_bus(True)  # there and back: both of the bus's ways work

    def _act(self, digest: Digest) -> None:
        if digest.node != self.author.node:
            self._signals.hear(digest.node, digest.epoch, digest.signals)

    def _hint(self, heads: Iterable[tuple[str, int]]) -> None:
        for channel, tail in heads:
            self._channels.hint(channel, tail)

    async def tell(self) -> None:
        """Task: a digest each PERIOD_S, on the bus and in the table."""
        while True:
            await anyio.sleep(PERIOD_S)
            digest = self.author.make()
            if self.relay is not None and not self.relay.bus.alone:
                self.relay.say(NODES_TOPIC, digest)
            if self._table is not None:
                self._errands.begin(partial(self._write_row, self._table, digest))

    async def _write_row(self, table: DigestTable, digest: Digest) -> None:
        try:
            with anyio.fail_after(self._limits.read_deadline_s):
                await table.write(digest.node, digest.epoch, digest.number, _encode(digest))
        except (TableAway, TimeoutError):
            self.rows_failed += 1

    async def run(self) -> None:
        """Task: look around each TABLE_PERIOD_S."""
        while True:
            await anyio.sleep(TABLE_PERIOD_S)
            now = anyio.current_time()
            self.reader.tick(now)
            self._listen_anew(now)
            if self.reader.wants_table(now) or self._is_off_the_bus:
                await self._read_table()
            if self.reader.sweep_begins():
                self._errands.begin(self._sweep)

    @property
    def _is_off_the_bus(self) -> bool:
        """Nothing comes over the bus, and that is known at once: no need to wait for a silence."""
        return self.relay is not None and self.relay.link is None and self._table is not None

    def _listen_anew(self, now: float) -> None:
        """A link that does not bring our own digest back is of no use, whatever it says of itself."""
        relay = self.relay
        if relay is None:
            if self._table is None:
                self.reader.alone(now)
        elif relay.bus.alone:
            self.reader.alone(now)
        elif self.reader.is_deaf(now) and relay.link is not None and now - relay.linked_at > SILENT_S:
            relay.relink()

    async def _read_table(self) -> None:
        if self._table is None:
            return self.reader.table_absent(anyio.current_time())
        try:
            with anyio.fail_after(self._limits.read_deadline_s):
                rows = await self._table.since(self.reader.since())
        except (TableAway, TimeoutError):
            return self.reader.table_unreadable(anyio.current_time())
        digests = [digest for row in rows if (digest := self._decoded(row)) is not None]
        self._hint(self.reader.table_read(digests, anyio.current_time()))
        for digest in digests:
            self._act(digest)
        return None

    def _decoded(self, row: bytes) -> Digest | None:
        try:
            return _decoder.decode(row)
        except msgspec.DecodeError:
            self.rows_unknown += 1
            return None

    async def _sweep(self) -> None:
        """Ask for the heads of all open logs, the most recently busy first, within the budget."""
        complete = True
        for names in batches(self._channels.recent_first()):
            try:
                with anyio.fail_after(self._limits.read_deadline_s):
                    await self._hint_heads(names)
            except (SourceAway, TimeoutError):
                complete = False
            await anyio.sleep(1 / SWEEP_CALLS_PER_S)
        self.sweeps += 1
        self.reader.sweep_ended(anyio.current_time(), complete=complete)

    async def _hint_heads(self, names: list[str]) -> None:
        """One call per source among them."""
        by_source: dict[int, list[str]] = {}
        sources = [self._channels.source(name) for name in names]
        for name, source in zip(names, sources, strict=True):
            by_source.setdefault(sources.index(source), []).append(name)
        for index, group in by_source.items():
            source = sources[index]
            assert source is not None, "only channels with a log are swept"
            self._hint((await source.heads(group)).items())
