"""What an entry of a conversation's log is, and the one envelope in which everybody reads it.

Numbers: `sequence` counts entries (1, 2, 3 … without holes), `message_number` counts messages only. Both are given by the
store when it appends. The body of an entry is one JSON object, encoded once by the feature that made it; the numbers and the
envelope are spliced around it, so that socket, poll and log route show the very same bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from secureconnect.ids import ConversationId, MessageId, UserId, conversation_channel

MESSAGE_CREATED: Final = "message.created"
MESSAGE_EDITED: Final = "message.edited"
MESSAGE_DELETED: Final = "message.deleted"
CONVERSATION_CREATED: Final = "conversation.created"
CONVERSATION_CHANGED: Final = "conversation.changed"
MEMBER_JOINED: Final = "member.joined"
MEMBER_LEFT: Final = "member.left"
MEMBER_ROLE_CHANGED: Final = "member.role_changed"


class NewEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry on its way into the log.

    `key` is the idempotency key, unique in its conversation: the same key is stored once, whatever the content
    (for a new message the message id; for anything else an id of the deed).
    `data` is a JSON object in UTF-8 without `sequence` and `message_number`, which are spliced in.
    `message` is the message that a `message.*` entry is about.
    `replacement` (edits and deletions) is the JSON object that takes the place of that message's body, in the projection and in
    what is replayed; None leaves it. A deletion also empties the bodies of the message's earlier edits (`redaction`).
    """

    key: str
    kind: str
    data: bytes
    actor: UserId
    at_us: int
    message: MessageId | None = None
    replacement: bytes | None = None
    redaction: bytes | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry as it is stored. `message_number` is 0 for everything that is not `message.created`."""

    conversation: ConversationId
    sequence: int
    message_number: int
    kind: str
    data: bytes
    key: str
    actor: UserId
    at_us: int
    message: MessageId | None = None

    def body(self) -> bytes:
        """The event's `data`: the stored object with its numbers in front."""
        return with_numbers(self.data, self.sequence, self.message_number)

    def envelope(self) -> bytes:
        """The event as every client reads it, live, replayed, polled or from the log route."""
        return b'{"event":"%b","channel":"%b","sequence":%d,"data":%b}' % (
            self.kind.encode(),
            conversation_channel(self.conversation).encode(),
            self.sequence,
            self.body(),
        )


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The answer to one appended entry. `duplicate`: its key was stored before, and this is that first entry."""

    entry: Entry
    duplicate: bool


class Head(msgspec.Struct, frozen=True, gc=False):
    """Where a log ends and begins. Kept apart from the entries: neither retention nor an empty log resets a number.

    `tail`: the last sequence, 0 when nothing was appended. `messages`: the last message number.
    `first`: the lowest sequence that retention has kept (1 when nothing was removed).
    """

    tail: int = 0
    messages: int = 0
    first: int = 1


class LogPage(msgspec.Struct, frozen=True):
    """Entries in ascending order without holes, and the head at the moment of the read (one snapshot)."""

    entries: tuple[Entry, ...]
    head: Head


def with_numbers(data: bytes, sequence: int, message_number: int) -> bytes:
    """Splice the numbers into a JSON object: `{"a":1}` becomes `{"sequence":7,"message_number":3,"a":1}`."""
    assert data[:1] == b"{", "an entry's body is a JSON object"
    rest = data[1:]
    comma = b"" if rest.lstrip()[:1] == b"}" else b","
    if message_number:
        return b'{"sequence":%d,"message_number":%d%b%b' % (sequence, message_number, comma, rest)
    return b'{"sequence":%d%b%b' % (sequence, comma, rest)
