"""The conversation log in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace
from trio.lowlevel import checkpoint

from secureconnect.features.log.draft import draft
from secureconnect.features.log.model import (
    MESSAGE_CREATED,
    MESSAGE_DELETED,
    MESSAGE_EDITED,
    Appended,
    Entry,
    Head,
    LogPage,
    NewEntry,
)
from secureconnect.ids import ConversationId, MessageId


@dataclass(slots=True)
class _Log:
    """One conversation. `entries[n - 1]` has the number n and reads as it is replayed; the indexes below point into it."""

    entries: list[Entry] = field(default_factory=list)
    by_key: dict[str, int] = field(default_factory=dict)
    messages: list[int] = field(default_factory=list)
    edits: dict[MessageId, list[int]] = field(default_factory=dict)
    deleted: dict[MessageId, bool] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        return Head(len(self.entries), len(self.messages))

    def append(self, conversation: ConversationId, new: Sequence[NewEntry]) -> Sequence[Appended]:
        known = {entry.key: self.entries[self.by_key[entry.key] - 1] for entry in new if entry.key in self.by_key}
        made = draft(new, known=known, deleted=self.deleted)
        numbered = made.numbered(conversation, tail=self.head.tail, messages=self.head.messages)
        for entry, origin in zip(numbered, made.fresh, strict=True):
            self._keep(entry, origin)
        return made.answers(numbered)

    def _keep(self, entry: Entry, new: NewEntry) -> None:
        self.entries.append(entry)
        self.by_key[entry.key] = entry.sequence
        if entry.message is None:
            return
        if entry.kind == MESSAGE_CREATED:
            self.messages.append(entry.sequence)
            self.deleted[entry.message] = False
            return
        if entry.kind == MESSAGE_EDITED:
            self.edits.setdefault(entry.message, []).append(entry.sequence)
        if entry.kind == MESSAGE_DELETED:
            self.deleted[entry.message] = True
        if new.replacement is not None:
            self._rewrite(self.by_key[entry.message], new.replacement)
        if new.redaction is not None:
            for sequence in self.edits.get(entry.message, ()):
                self._rewrite(sequence, new.redaction)

    def _rewrite(self, sequence: int, data: bytes) -> None:
        self.entries[sequence - 1] = replace(self.entries[sequence - 1], data=data)


class MemoryLogStore:
    """`LogStore`. Several nodes of a simulation may share one."""

    def __init__(self) -> None:
        self._logs: dict[ConversationId, _Log] = {}
        self._places: dict[MessageId, ConversationId] = {}

    async def append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        await checkpoint()
        log = self._logs.get(conversation) or _Log()
        appended = log.append(conversation, entries)
        if log.entries:
            self._logs[conversation] = log
        for one in appended:
            if one.entry.kind == MESSAGE_CREATED and one.entry.message is not None:
                self._places[one.entry.message] = conversation
        return appended

    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        await checkpoint()
        log = self._logs.get(conversation)
        if log is None:
            return LogPage((), Head())
        begin = max(after, 0)
        return LogPage(tuple(log.entries[begin : begin + max(limit, 0)]), log.head)

    async def heads(self, conversations: Sequence[ConversationId]) -> Mapping[ConversationId, Head]:
        await checkpoint()
        return {c: self._logs[c].head for c in conversations if c in self._logs}

    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]:
        await checkpoint()
        log = self._logs.get(conversation)
        if log is None:
            return []
        end = len(log.messages) if below is None else min(max(below - 1, 0), len(log.messages))
        newest = [sequence for sequence in reversed(log.messages[max(end - limit, 0) : end]) if sequence >= floor]
        return [log.entries[sequence - 1] for sequence in newest]

    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None:
        await checkpoint()
        log = self._logs.get(conversation)
        if log is None or message not in log.deleted:
            return None
        return log.entries[log.by_key[message] - 1]

    async def locate(self, message: MessageId) -> ConversationId | None:
        await checkpoint()
        return self._places.get(message)

    def last_us(self, conversation: ConversationId) -> int | None:
        """The time of the last entry, for lists that are ordered by it; None when there is none."""
        log = self._logs.get(conversation)
        return log.entries[-1].at_us if log is not None else None
