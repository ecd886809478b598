"""What the log needs kept: one protocol, held by the same contract suite over every backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from secureconnect.errors import Conflict
from secureconnect.features.log.model import Appended, Entry, Head, LogPage, NewEntry
from secureconnect.ids import ConversationId, MessageId


class EntryRefused(Conflict):
    """The log will never take this entry: its message is unknown in the conversation, or deleted already."""


class LogStore(Protocol):
    """The log's home. Every method ends within one attempt's deadline, set by its caller's scope."""

    async def append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        """Append all of `entries` in their order, or none: atomic, dense, idempotent by key.

        An entry whose key is stored already gets no number; its first entry is the answer (`duplicate`), whatever the content is
        now; a key twice in one call likewise. The projection (the message's present body), replacements and redactions change in
        the same step.

        Raises: EntryRefused (nothing of the group is stored), StorageFull (nothing stored), BackendDown (nothing stored),
        OutcomeUnknown (it may be stored now or later).
        Cancellation: like OutcomeUnknown.
        """
        ...

    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        """At most `limit` entries with a sequence above `after`, ascending, and the head; limit 0 reads only the head.

        An unknown conversation is an empty log. Raises: BackendDown, DeadlineExceeded.
        """
        ...

    async def heads(self, conversations: Sequence[ConversationId]) -> Mapping[ConversationId, Head]:
        """The heads of many conversations in one call; unknown ones are left out."""
        ...

    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]:
        """Messages as people read them now (edited, deleted ones as tombstones), newest first: the projection.

        `below`: only message numbers under it (None: from the end). `floor`: only entries with a sequence at or above it.
        Each is the `message.created` entry with the message's present body.
        """
        ...

    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None:
        """One message as it reads now; None when the conversation has none of this id."""
        ...

    async def locate(self, message: MessageId) -> ConversationId | None:
        """The conversation of a message, for requests that name only the message."""
        ...
