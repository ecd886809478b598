"""The log as features see it: append and be told what is true, read in every way there is.

One way in: room in the channel's queue first, then the pipeline, then the hub, which feeds every subscriber. After an entry is
stored nothing can fail: the log is the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from secureconnect.errors import Overloaded
from secureconnect.features.log.lanes import LIMITS, Limits
from secureconnect.features.log.model import Appended, Entry, Head, LogPage, NewEntry
from secureconnect.features.log.pipeline import Pipeline
from secureconnect.features.log.source import item_of
from secureconnect.features.log.store import LogStore
from secureconnect.hub import Full, Item
from secureconnect.ids import ConversationId, MessageId, conversation_channel
from secureconnect.observe import stage


class Receipt(msgspec.Struct, frozen=True):
    """The answer to an append. `duplicate`: the key was there before, `entry` is the first one under it."""

    ack: Literal["stored"]
    entry: Entry
    duplicate: bool


class Channels(Protocol):
    """The part of the hub that the log needs."""

    async def reserve(self, channel: str) -> AbstractContextManager[object]:
        """Room for one entry, given back when the block ends. Raises: Full."""
        ...

    def commit(self, channel: str, items: Sequence[Item]) -> None:
        """Stored here, ascending: feed, name in the digest, publish. Cannot fail; what was committed before is harmless."""
        ...


class Log:
    """The service. Its `pipeline` must be run (`backends/appends.py`) for appends to end. `now_s`: the event loop's time."""

    def __init__(self, store: LogStore, hub: Channels, *, now_s: Callable[[], float], limits: Limits = LIMITS) -> None:
        self.pipeline = Pipeline(store, self._stored, now_s=now_s, limits=limits)
        self._now_s = now_s
        self._store = store
        self._hub = hub

    def now_s(self) -> float:
        """The time by which appends are bounded."""
        return self._now_s()

    async def append(
        self,
        conversation: ConversationId,
        entry: NewEntry,
        *,
        placed: Callable[[], None] | None = None,
        asked_s: float | None = None,
    ) -> Receipt:
        """Store one entry, once; what is appended at the same time shares a transaction with it.

        Raises: EntryRefused; Overloaded, StorageFull, BackendDown (503, nothing stored); OutcomeUnknown (it may be, or will be).
        Cancellation: taken back if it has not begun, else it goes on; the same key gives the result.
        Ordering: entries of one conversation are numbered in the order of the calls of `placed`, which is that of the calls
        themselves unless the conversation's queue is full. `asked_s`: when the request began, by `now_s`: what it has waited for
        already is a part of the time that its append gets. `placed`: called when the entry has its place among them.
        """
        channel = conversation_channel(conversation)
        stage.at("room")
        try:
            room = await self._hub.reserve(channel)
        except Full as full:
            raise Overloaded("Too many events wait in this conversation", details={"channel": channel}) from full
        with room:
            stage.at("log.append")
            appended = await self.pipeline.append(conversation, entry, placed=placed, asked_s=asked_s)
        return Receipt("stored", appended.entry, appended.duplicate)

    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        """See LogStore.read."""
        stage.at("log.read")
        return await self._store.read(conversation, after, limit)

    async def heads(self, conversations: Sequence[ConversationId]) -> Mapping[ConversationId, Head]:
        """See LogStore.heads."""
        stage.at("log.read")
        return await self._store.heads(conversations)

    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]:
        """See LogStore.messages."""
        stage.at("log.read")
        return await self._store.messages(conversation, below=below, limit=limit, floor=floor)

    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None:
        """See LogStore.message."""
        stage.at("log.read")
        return await self._store.message(conversation, message)

    async def locate(self, message: MessageId) -> ConversationId | None:
        """See LogStore.locate."""
        stage.at("log.read")
        return await self._store.locate(message)

    def _stored(self, conversation: ConversationId, appended: Sequence[Appended]) -> None:
        entries = {a.entry.sequence: a.entry for a in appended}  # a repeated key answers with an earlier number, maybe twice
        self._hub.commit(conversation_channel(conversation), [item_of(entries[sequence]) for sequence in sorted(entries)])
