"""Announcements in SQL: rows that another plan writes in its own transaction, and the store that tells them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, cast

from secureconnect.backends.sql.bulk import in_bulk
from secureconnect.backends.sql.engine import Engine, Plan, Row
from secureconnect.features.log.announcer import Announcement
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId, UserId

INSERT: Final = "INSERT INTO announcements (conversation_id, key, kind, data, actor, at_us, joined) VALUES {rows}"
COLUMNS: Final = "SELECT id, conversation_id, key, kind, data, actor, at_us, joined FROM announcements "
SELECT_ALL: Final = COLUMNS + "ORDER BY id LIMIT $1"
SELECT_OF: Final = COLUMNS + "WHERE conversation_id = $1 ORDER BY id"
DELETE: Final = "DELETE FROM announcements WHERE id IN ({rows})"
SHOW_FROM: Final = """
    UPDATE participants SET joined_sequence = $1, visible_from = COALESCE(visible_from, $1)
    WHERE conversation_id = $2 AND user_id = $3 AND joined_sequence IS NULL
    AND (SELECT MAX(id) FROM announcements a WHERE a.conversation_id = $2 AND a.joined = $3) = $4
"""


def insert(conversation: ConversationId, entries: Sequence[tuple[NewEntry, UserId | None]]) -> Plan[None]:
    """Announce `entries`, each with whose membership it begins, in the plan that says `yield from insert(…)`."""
    assert all(entry.message is None for entry, _ in entries), "what is about a message could be refused by the log"
    yield from in_bulk(INSERT, [(conversation, e.key, e.kind, e.data, e.actor, e.at_us, joined) for e, joined in entries])


class SqlAnnouncementStore:
    """`AnnouncementStore` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def pending(self, limit: int) -> Sequence[Announcement]:
        return await self._engine.read(partial(_select, SELECT_ALL, limit))

    async def pending_of(self, conversation: ConversationId) -> Sequence[Announcement]:
        return await self._engine.read(partial(_select, SELECT_OF, conversation))

    async def show(self, numbered: Sequence[tuple[Announcement, int]]) -> None:
        await self._engine.write(partial(_show, numbered))

    async def done(self, told: Sequence[Announcement]) -> None:
        await self._engine.write(partial(_done, told))


def _select(text: str, value: str | int) -> Plan[Sequence[Announcement]]:
    rows = yield text, (value,)
    return [_announcement(row) for row in rows]


def _show(numbered: Sequence[tuple[Announcement, int]]) -> Plan[None]:
    for announcement, sequence in numbered:
        if announcement.joined is not None:
            yield SHOW_FROM, (sequence, announcement.conversation, announcement.joined, announcement.id)


def _done(told: Sequence[Announcement]) -> Plan[None]:
    yield from in_bulk(DELETE, [(announcement.id,) for announcement in told])


def _announcement(row: Row) -> Announcement:
    number, conversation, key, kind, data, actor, at_us, joined = cast(
        "tuple[int, ConversationId, str, str, bytes, UserId, int, UserId | None]", row
    )
    return Announcement(number, conversation, NewEntry(key, kind, data, actor, at_us), joined)
