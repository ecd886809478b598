"""What this node decided while the home of the data was away, kept on its own disk until the home has it.

One file, only ever appended to. A record is its length, its checksum and its content; a `Kept` is on disk before `keep` returns,
and a `Done` is written behind the deed that it tells of. So after a crash at any moment the file says which items may still have
to be brought home; an item whose deed was done and whose `Done` was lost is done again, and what does it must bear that.

A crash may tear the last record: reading ends at the first that is not whole, and the next one is written there. What an item
belongs to begins with a `Began`; when all items are done and counted, the file is made anew with those that came meanwhile.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from itertools import islice
from typing import ClassVar, Final, Literal, TypeAlias, TypeVar

import anyio
import msgspec
import structlog

from secureconnect.errors import BackendDown, Overloaded
from secureconnect.ports import Disk

BYTES_MAX: Final = 8 << 20
"""Of kept items: about 50,000 ended sessions. What tells that they are done comes on top, a few bytes each."""

ITEM_BYTES: Final = 64
"""Of each item beside its key and data, in the file and in this count."""

T = TypeVar("T")
Category = Literal["applied", "superseded", "conflicted", "expired", "dropped"]

_HEAD: Final = struct.Struct("<II")  # length and CRC-32 of what follows
_log = structlog.get_logger("secureconnect.fallback")


class Item(msgspec.Struct, frozen=True, tag="kept"):
    """One decision. `kind` says by which rule it is brought home, `key` what it is about, `data` the rest, which the rule reads.

    `number` counts the items of this file. `expires_us`: from then on (wall time) it need not be brought home; None: never.
    """

    number: int
    kind: str
    key: str
    data: bytes
    at_us: int
    expires_us: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of an item, and in a word or two why."""

    category: Category
    cause: str = ""


class Began(msgspec.Struct, frozen=True, tag="began"):
    """The outage, or the single refused call, to which the items that follow belong."""

    at_us: int


class _Done(msgspec.Struct, frozen=True, tag="done"):
    outcomes: dict[int, Outcome]


_Record: TypeAlias = Item | Began | _Done
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


class OutageLogFull(Overloaded):
    """This node can keep no more decisions while the store is away; nothing was done."""

    code: ClassVar[str] = "JOURNAL_FULL"


class OutageLog:
    """The file `name`. Call `load` once, first. `began`: None while nothing is kept. `bytes`: of what is."""

    def __init__(self, disk: Disk, name: str, *, bytes_max: int = BYTES_MAX) -> None:
        self.began: Began | None = None
        self.bytes, self.bytes_max, self.full_total = 0, bytes_max, 0
        self._disk, self._name = disk, name
        self._pending: dict[int, Item] = {}
        self._newest: dict[tuple[str, str], int] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._number = 0
        self._end = 0
        self._turn = anyio.Lock()

    async def load(self) -> None:
        """Read what an earlier run has left. Raises: BackendDown when the disk does."""
        data = await self._on_disk(self._disk.read(self._name)) or b""
        self._end = 0
        for record, end in _records(data):
            self._end = end
            self._learn(record)
        if self._end < len(data):
            _log.warning("outage_log_cut", file=self._name, at=self._end, bytes=len(data) - self._end)

    @property
    def pending(self) -> Sequence[Item]:
        """Those that are not home, in their order."""
        return list(self._pending.values())

    def oldest(self, count: int) -> Sequence[Item]:
        """The first few of `pending`."""
        return list(islice(self._pending.values(), count))

    def is_newest(self, item: Item) -> bool:
        """Whether no later item of this kind has its key."""
        return self._newest[item.kind, item.key] == item.number

    @property
    def outcomes(self) -> Mapping[int, Outcome]:
        """Of the items that are done and not yet forgotten, by number. A copy."""
        return dict(self._outcomes)

    async def keep(self, kind: str, key: str, data: bytes, *, at_us: int, expires_us: int | None = None) -> Item:
        """Keep a decision; on return it survives a crash. `at_us`: now.

        Raises: OutageLogFull (nothing is kept), BackendDown (the disk failed; nothing is kept).
        Cancellation: it may be kept by a later run of this program.
        """
        async with self._turn:
            if self.bytes + _size(key, data) > self.bytes_max:
                self.full_total += 1
                raise OutageLogFull(details={"bytes_max": self.bytes_max})
            began = [] if self.began is not None else [Began(at_us)]
            item = Item(self._number + 1, kind, key, data, at_us, expires_us)
            await self._append([*began, item])
        return item

    async def done(self, outcomes: Mapping[int, Outcome]) -> None:
        """These items are home, or need not go there. Raises: BackendDown, and they count as pending."""
        async with self._turn:
            await self._append([_Done(dict(outcomes))])

    async def forget_done(self) -> None:
        """Drop what is done, for it is counted elsewhere. Raises: BackendDown, and it is still there."""
        async with self._turn:
            pending = self.pending
            rest: list[_Record] = [Began(pending[0].at_us), *pending] if pending else []
            data = b"".join(map(_framed, rest))
            await self._on_disk(self._disk.replace(self._name, data))
            self.began, self._pending, self._newest, self._outcomes = None, {}, {}, {}
            self.bytes, self._end = 0, len(data)
            for record in rest:
                self._learn(record)

    async def _append(self, records: Sequence[_Record]) -> None:
        data = b"".join(map(_framed, records))
        await self._on_disk(self._disk.write(self._name, data, at=self._end))
        self._end += len(data)
        for record in records:
            self._learn(record)

    def _learn(self, record: _Record) -> None:
        if isinstance(record, Item):
            self._pending[record.number] = record
            self._newest[record.kind, record.key] = record.number
            self._number = max(self._number, record.number)
            self.bytes += _size(record.key, record.data)
        elif isinstance(record, Began):
            self.began = record
        else:
            self._outcomes |= record.outcomes
            for number in record.outcomes:
                del self._pending[number]

    async def _on_disk(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except OSError as error:
            _log.error("outage_log_disk", file=self._name, error=str(error))
            raise BackendDown("disk", "This node's disk does not take its decisions", inside=str(error)) from error


def _size(key: str, data: bytes) -> int:
    return len(key) + len(data) + ITEM_BYTES


def _framed(record: _Record) -> bytes:
    content = _encode(record)
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def _records(data: bytes) -> Iterator[tuple[_Record, int]]:
    """The whole records from the beginning, each with its end. Raises: BackendDown (it is another version's)."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, check = _HEAD.unpack_from(data, at)
        content = data[at + _HEAD.size : at + _HEAD.size + size]
        if not size or len(content) < size or zlib.crc32(content) != check:  # size 0: what a crash left is often zeros
            return
        at += _HEAD.size + size
        try:
            yield _decode(content), at
        except msgspec.DecodeError as error:
            raise BackendDown("disk", "The record of an outage was written by another version", inside=str(error)) from error
