"""A place in a list of conversations as an opaque text that clients bring back."""

from __future__ import annotations

import base64
from typing import Final

from secureconnect.features.conversations.model import invalid
from secureconnect.features.conversations.store import Position
from secureconnect.ids import ConversationId, is_uuid

US_MAX: Final = 2**63 - 1


def write_cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(f"{position.active_us}:{position.conversation}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> Position:
    """Raises: BadRequest for anything that we have not made."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
        moment, _, conversation = raw.partition(":")
        active_us = int(moment) if moment.isdigit() else -1
    except ValueError:  # not base64, not ASCII, or more digits than a number may have
        raise invalid("cursor", "This is no cursor of ours") from None
    if not 0 <= active_us <= US_MAX or not is_uuid(conversation):
        raise invalid("cursor", "This is no cursor of ours")
    return Position(active_us, ConversationId(conversation))
