"""What a message is, what it may hold, and how its readers see it.

A message's body is one JSON object, encoded once when it is sent (or edited, or deleted) and never taken apart on its way to
readers. It speaks both dialects of the original's clients: `message_type` and `content_type`, `sent_at` and `created_at`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from secureconnect.errors import BadRequest, TooLarge
from secureconnect.ids import is_uuid

MessageType = Literal["text", "image", "video", "file", "audio"]

TEXT_CODE_POINTS_MAX: Final = 10_000
CIPHERTEXT_BYTES_MAX: Final = 65_536
"""Of UTF-8: 10,000 code points, encrypted and in base64 in a JSON object, with room to spare."""
METADATA_KEYS_MAX: Final = 50
METADATA_KEY_CHARS_MAX: Final = 100
METADATA_VALUE_CHARS_MAX: Final = 1_000
"""Of the value as text: what is no string counts as its JSON."""
CLIENT_MESSAGE_ID_CHARS_MAX: Final = 128
HISTORY_DEFAULT: Final = 20
HISTORY_MAX: Final = 100
LOG_DEFAULT: Final = 100
LOG_MAX: Final = 200
"""Entries in one answer of the log; at 64 KiB each that is still a body of 13 MB."""
NUMBER_MAX: Final = 2**53 - 1
"""The highest sequence or message number that a request may name: what JSON's readers hold exactly."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The body as it is stored; `sequence` and `message_number` are spliced in when it is read."""

    message_id: str
    conversation_id: str
    sender_id: str
    content: str | UnsetType = UNSET
    is_encrypted: bool
    message_type: MessageType
    content_type: MessageType
    sent_at: str
    created_at: str
    metadata: dict[str, object] | UnsetType = UNSET
    reply_to_message_id: str | UnsetType = UNSET
    client_message_id: str | UnsetType = UNSET
    edited_at: str | UnsetType = UNSET
    deleted_at: str | UnsetType = UNSET

    def tombstone(self, deleted_at: str) -> Message:
        """What is left of it: who said something of which kind when, and when it went."""
        return msgspec.structs.replace(self, content=UNSET, metadata=UNSET, edited_at=UNSET, deleted_at=deleted_at)


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks to send."""

    content: str
    is_encrypted: bool = False
    message_type: MessageType = "text"
    metadata: Mapping[str, object] | None = None
    client_message_id: str | None = None
    reply_to_message_id: str | None = None


class Sent(msgspec.Struct, frozen=True):
    """The answer to a send. `ack` says what is true of it: `stored`. `duplicate`: this is the first result again."""

    body: bytes
    ack: Literal["stored"]
    duplicate: bool


@dataclass(frozen=True, slots=True)
class History:
    """Messages as JSON objects, the newest first. `next`: a cursor for the page that follows; None: this was the last."""

    messages: tuple[bytes, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Envelopes of entries in order; `first` is the lowest sequence this member may read, `head` the log's last."""

    entries: tuple[bytes, ...]
    first: int
    head: int


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Message).decode


def check_content(content: str, *, is_encrypted: bool) -> None:
    """Raises: BadRequest (empty), TooLarge."""
    if not content:
        raise invalid("content", "A message needs content")
    if is_encrypted:
        if len(content.encode()) > CIPHERTEXT_BYTES_MAX:
            raise _too_large(f"Encrypted content has at most {CIPHERTEXT_BYTES_MAX:,} bytes", CIPHERTEXT_BYTES_MAX)
    elif len(content) > TEXT_CODE_POINTS_MAX:
        raise _too_large(f"A text has at most {TEXT_CODE_POINTS_MAX:,} characters", TEXT_CODE_POINTS_MAX)


def check_metadata(metadata: Mapping[str, object]) -> None:
    """Raises: BadRequest."""
    if len(metadata) > METADATA_KEYS_MAX:
        raise invalid("metadata", f"Metadata has at most {METADATA_KEYS_MAX} keys")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX:
            raise invalid("metadata", f"A key of metadata has at most {METADATA_KEY_CHARS_MAX} characters")
        if len(_as_text(value)) > METADATA_VALUE_CHARS_MAX:
            raise invalid("metadata", f"A value of metadata has at most {METADATA_VALUE_CHARS_MAX} characters")


def check_client_message_id(text: str) -> None:
    """Raises: BadRequest."""
    if not 1 <= len(text) <= CLIENT_MESSAGE_ID_CHARS_MAX:
        raise invalid("client_message_id", f"A client_message_id has 1 to {CLIENT_MESSAGE_ID_CHARS_MAX} characters")


def reply_target(new: NewMessage) -> str | None:
    """The message replied to: the field, or its alias in the metadata."""
    alias = (new.metadata or {}).get("reply_to_message_id")
    return new.reply_to_message_id or (alias if isinstance(alias, str) and alias else None)


def cursor_below(message_number: int) -> str:
    """A cursor for the messages with a lower number."""
    return base64.urlsafe_b64encode(b"m%d" % message_number).decode().rstrip("=")


def read_cursor(text: str) -> int | str:
    """What a cursor says: the message number to go on below, or the message whose id somebody gave instead of a cursor.

    Raises: BadRequest for anything that we have not made.
    """
    if is_uuid(text):
        return text.lower()
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        number = int(raw.removeprefix(b"m")) if raw[1:].isdigit() and raw[:1] == b"m" else 0
    except ValueError:  # not base64, not ASCII, or more digits than a number may have
        number = 0
    if not 1 <= number <= NUMBER_MAX:
        raise invalid("cursor", "This is no cursor of ours")
    return number


def invalid(field: str, message: str, *, reason: str | None = None) -> BadRequest:
    details = {"field": field} if reason is None else {"field": field, "reason": reason}
    return BadRequest(message, details=details)


def _too_large(message: str, limit: int) -> TooLarge:
    return TooLarge(message, details={"field": "content", "limit": limit})


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return encode(value).decode()
    except RecursionError:
        raise invalid("metadata", "Metadata is nested too deeply") from None
