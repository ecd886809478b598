"""The log as the hub reads it: entries become frames here, for what is appended and for what is replayed alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from secureconnect.errors import Unavailable
from secureconnect.features.log.model import Entry
from secureconnect.features.log.store import LogStore
from secureconnect.hub import Frame, Item, Page, SourceAway
from secureconnect.ids import ConversationId, conversation_channel

PREFIX: Final = "conversation:"
"""Of the channels that have a log."""


def item_of(entry: Entry) -> Item:
    """A numbered event of its conversation's channel."""
    channel = conversation_channel(entry.conversation)
    return Item(entry.sequence, Frame(entry.envelope(), channel, entry.kind, entry.sequence))


class LogSource:
    """A `hub.Source` over a log store."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    async def read(self, channel: str, after: int, limit: int) -> Page:
        try:
            page = await self._store.read(_conversation(channel), after, limit)
        except Unavailable as error:
            raise SourceAway(str(error)) from error
        return Page(tuple(map(item_of, page.entries)), page.head.tail, page.head.first)

    async def heads(self, channels: Sequence[str]) -> Mapping[str, int]:
        try:
            heads = await self._store.heads([_conversation(channel) for channel in channels])
        except Unavailable as error:
            raise SourceAway(str(error)) from error
        return {conversation_channel(conversation): head.tail for conversation, head in heads.items()}


def _conversation(channel: str) -> ConversationId:
    assert channel.startswith(PREFIX), f"{channel} has no log"
    return ConversationId(channel.removeprefix(PREFIX))
