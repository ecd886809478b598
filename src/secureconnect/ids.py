"""Typed identifiers and the few that are derived: names for strings that must never be mixed up."""

from __future__ import annotations

import hashlib
from typing import NewType

UserId = NewType("UserId", str)
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
SessionId = NewType("SessionId", str)
"""A login session (one device's login), the `sid` of its tokens."""
ConnectionId = NewType("ConnectionId", str)
RequestId = NewType("RequestId", str)
NodeId = NewType("NodeId", str)
Channel = NewType("Channel", str)
"""A hub channel's name: `conversation:<id>`, `user:<id>`, `call:<id>`."""


def as_uuid(raw: bytes) -> str:
    """16 bytes in the text form of a version 4 UUID (RFC 9562 §5.4), which is what old clients accept as an id."""
    assert len(raw) == 16
    b = bytearray(raw)
    b[6] = b[6] & 0x0F | 0x40
    b[8] = b[8] & 0x3F | 0x80
    h = b.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical 36-character form, any version, either case."""
    if len(text) != 36 or text[8] + text[13] + text[18] + text[23] != "----":
        return False
    return all(c in "0123456789abcdefABCDEF" for c in text.replace("-", "")) and text.count("-") == 4


def _derived(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return as_uuid(digest.digest())


def message_id(conversation: ConversationId, sender: UserId, client_message_id: str) -> MessageId:
    """The id of a message whose client named it: every node derives the same one, so it is the idempotency key everywhere."""
    return MessageId(_derived("message", conversation, sender, client_message_id))


def direct_conversation_id(a: UserId, b: UserId) -> ConversationId:
    """The one direct conversation of a pair, whoever begins it."""
    first, second = sorted((a, b))
    return ConversationId(_derived("direct", first, second))


def conversation_channel(conversation: ConversationId) -> Channel:
    return Channel("conversation:" + conversation)


def user_channel(user: UserId) -> Channel:
    return Channel("user:" + user)
