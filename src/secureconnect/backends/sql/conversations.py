"""Conversations and their members in SQL. Each change is one plan: the rows and their announcements, or nothing.

That a group keeps an admin and stays under its size is read and written in the same transaction, so the engine's isolation of
writers makes it hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, cast

from secureconnect.backends.sql import announcements
from secureconnect.backends.sql.bulk import in_bulk
from secureconnect.backends.sql.directory import PROFILE, profile
from secureconnect.backends.sql.engine import Engine, Plan, Row, Value
from secureconnect.features.access.model import SEES_NOTHING, ConversationType, Membership, Role, Rules, Standing
from secureconnect.features.conversations.model import (
    Conversation,
    Departure,
    HistoryVisibility,
    NewMember,
    Participant,
    Settings,
    Summary,
)
from secureconnect.features.conversations.store import Change, GroupFull, LastAdmin, Position
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId, UserId

CONVERSATION: Final = """
    c.conversation_id, c.type, c.title, c.avatar_url, c.created_by, c.created_us, c.updated_us,
    c.is_e2ee_enabled, c.ai_enabled, c.recording_enabled, c.message_retention_days, c.members_may_invite, c.history_visibility
"""
CONVERSATION_COLUMNS: Final = 13
INSERT_CONVERSATION: Final = """
    INSERT INTO conversations (conversation_id, type, title, avatar_url, created_by, created_us, updated_us,
        is_e2ee_enabled, ai_enabled, recording_enabled, message_retention_days, members_may_invite, history_visibility)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (conversation_id) DO NOTHING RETURNING conversation_id
"""
SELECT_CONVERSATION: Final = f"SELECT {CONVERSATION} FROM conversations c WHERE c.conversation_id = $1"
UPDATE_CONVERSATION: Final = """
    UPDATE conversations SET title = $2, avatar_url = $3, updated_us = $4, is_e2ee_enabled = $5, ai_enabled = $6,
        recording_enabled = $7, message_retention_days = $8, members_may_invite = $9, history_visibility = $10
    WHERE conversation_id = $1
"""
DELETE_CONVERSATION: Final = "DELETE FROM conversations WHERE conversation_id = $1 RETURNING conversation_id"
DELETE_PARTICIPANTS: Final = "DELETE FROM participants WHERE conversation_id = $1"
SUMMARY: Final = f"""
    SELECT {CONVERSATION}, me.role,
        (SELECT COUNT(*) FROM participants p WHERE p.conversation_id = c.conversation_id),
        COALESCE(h.tail, 0), COALESCE(h.messages, 0), COALESCE(h.last_us, c.created_us), {PROFILE}
    FROM participants me
    JOIN conversations c ON c.conversation_id = me.conversation_id
    LEFT JOIN heads h ON h.conversation_id = c.conversation_id
    LEFT JOIN participants o ON c.type = 'direct' AND o.conversation_id = c.conversation_id AND o.user_id <> me.user_id
    LEFT JOIN users u ON u.user_id = o.user_id
    WHERE me.user_id = $1
"""
SELECT_SUMMARY: Final = SUMMARY + "AND me.conversation_id = $2"
SELECT_LIST: Final = (
    SUMMARY
    + """
    AND (COALESCE(h.last_us, c.created_us) < $2 OR (COALESCE(h.last_us, c.created_us) = $2 AND c.conversation_id < $3))
    ORDER BY COALESCE(h.last_us, c.created_us) DESC, c.conversation_id DESC LIMIT $4 OFFSET $5
"""
)
SELECT_PARTICIPANTS: Final = f"""
    SELECT p.role, p.joined_us, p.user_id, {PROFILE}
    FROM participants p LEFT JOIN users u ON u.user_id = p.user_id
    WHERE p.conversation_id = $1 ORDER BY p.joined_us, p.user_id
"""
INSERT_PARTICIPANTS: Final = """
    INSERT INTO participants (conversation_id, user_id, role, joined_us, visible_from, joined_sequence) VALUES {rows}
    ON CONFLICT (conversation_id, user_id) DO NOTHING RETURNING user_id
"""
COUNT_PARTICIPANTS: Final = "SELECT COUNT(*) FROM participants WHERE conversation_id = $1"
DELETE_PARTICIPANT: Final = "DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2 RETURNING role"
SELECT_ROLE: Final = "SELECT role FROM participants WHERE conversation_id = $1 AND user_id = $2"
UPDATE_ROLE: Final = "UPDATE participants SET role = $3 WHERE conversation_id = $1 AND user_id = $2"
COUNT_OTHER_ADMINS: Final = "SELECT COUNT(*) FROM participants WHERE conversation_id = $1 AND role = 'admin' AND user_id <> $2"
SELECT_LONGEST_MEMBER: Final = """
    SELECT user_id FROM participants WHERE conversation_id = $1 ORDER BY joined_us, user_id LIMIT 1
"""
STANDING: Final = """
    SELECT c.conversation_id, c.type, c.created_by, c.is_e2ee_enabled, c.ai_enabled, c.members_may_invite,
        p.user_id, p.role, p.joined_us, p.visible_from, p.joined_sequence
"""
SELECT_STANDING: Final = (
    STANDING
    + """
    FROM conversations c LEFT JOIN participants p ON p.conversation_id = c.conversation_id AND p.user_id = $2
    WHERE c.conversation_id = $1
"""
)
SELECT_STANDINGS_OF: Final = (
    STANDING
    + """
    FROM participants p JOIN conversations c ON c.conversation_id = p.conversation_id WHERE p.user_id = $1
"""
)
SELECT_MEMBER_IDS: Final = "SELECT user_id FROM participants WHERE conversation_id = $1 ORDER BY joined_us, user_id"
SELECT_CO_MEMBERS: Final = """
    WITH asked (me, other) AS (VALUES {rows})
    SELECT asked.other FROM asked WHERE EXISTS (
        SELECT 1 FROM participants mine
        JOIN participants theirs ON theirs.conversation_id = mine.conversation_id AND theirs.user_id = asked.other
        WHERE mine.user_id = asked.me
    )
"""

END_OF_TIME_US: Final = 2**63 - 1


class SqlConversations:
    """`conversations.Store` and `AccessStore` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, conversation: Conversation, members: Sequence[NewMember], entry: NewEntry) -> bool:
        return await self._engine.write(partial(_create, conversation, members, entry))

    async def change(self, conversation: ConversationId, decide: Callable[[Conversation], Change | None]) -> bool:
        return await self._engine.write(partial(_change, conversation, decide))

    async def delete(self, conversation: ConversationId, farewell: Callable[[UserId], NewEntry]) -> Sequence[UserId]:
        return await self._engine.write(partial(_delete, conversation, farewell))

    async def summary(self, conversation: ConversationId, user: UserId) -> Summary | None:
        rows = await self._engine.read(partial(_rows, SELECT_SUMMARY, (user, conversation)))
        return _summary(rows[0]) if rows else None

    async def list_of(self, user: UserId, *, limit: int, offset: int = 0, after: Position | None = None) -> Sequence[Summary]:
        place = (after.active_us, after.conversation) if after else (END_OF_TIME_US, "")
        rows = await self._engine.read(partial(_rows, SELECT_LIST, (user, *place, limit, offset)))
        return [_summary(row) for row in rows]

    async def participants(self, conversation: ConversationId) -> Sequence[Participant]:
        rows = await self._engine.read(partial(_rows, SELECT_PARTICIPANTS, (conversation,)))
        return [_participant(row) for row in rows]

    async def join(
        self, conversation: ConversationId, members: Sequence[tuple[NewMember, NewEntry]], *, members_max: int
    ) -> Sequence[UserId]:
        return await self._engine.write(partial(_join, conversation, members, members_max))

    async def leave(
        self, conversation: ConversationId, user: UserId, entry: NewEntry, *, promotion: Callable[[UserId], NewEntry]
    ) -> Departure | None:
        return await self._engine.write(partial(_leave, conversation, user, entry, promotion))

    async def set_role(self, conversation: ConversationId, user: UserId, role: Role, entry: NewEntry) -> bool | None:
        return await self._engine.write(partial(_set_role, conversation, user, role, entry))

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        rows = await self._engine.read(partial(_rows, SELECT_STANDING, (conversation, user)))
        return _standing(rows[0]) if rows else None

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        rows = await self._engine.read(partial(_rows, SELECT_MEMBER_IDS, (conversation,)))
        return [UserId(str(user)) for (user,) in rows]

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        rows = await self._engine.read(partial(_rows, SELECT_STANDINGS_OF, (user,)))
        return [_standing(row) for row in rows]

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        pairs = [(user, other) for other in dict.fromkeys(among)]
        rows = await self._engine.read(partial(in_bulk, SELECT_CO_MEMBERS, pairs))
        return [UserId(str(other)) for (other,) in rows]


def _create(conversation: Conversation, members: Sequence[NewMember], entry: NewEntry) -> Plan[bool]:
    c, s = conversation, conversation.settings
    created = yield (
        INSERT_CONVERSATION,
        (c.id, c.type, c.title, c.avatar_url, c.created_by, c.created_us, c.updated_us, *_settings_row(s)),
    )
    if not created:
        return False
    yield from in_bulk(INSERT_PARTICIPANTS, [_member_row(c.id, member, began=1) for member in members])
    yield from announcements.insert(c.id, [(entry, None)])
    return True


def _change(conversation: ConversationId, decide: Callable[[Conversation], Change | None]) -> Plan[bool]:
    rows = yield SELECT_CONVERSATION, (conversation,)
    change = decide(_conversation(rows[0])) if rows else None
    if change is None:
        return False
    c = change.conversation
    yield UPDATE_CONVERSATION, (c.id, c.title, c.avatar_url, c.updated_us, *_settings_row(c.settings))
    yield from announcements.insert(c.id, [(change.entry, None)])
    return True


def _delete(conversation: ConversationId, farewell: Callable[[UserId], NewEntry]) -> Plan[Sequence[UserId]]:
    if not (yield DELETE_CONVERSATION, (conversation,)):
        return []
    rows = yield SELECT_MEMBER_IDS, (conversation,)
    members = [UserId(str(user)) for (user,) in rows]
    yield DELETE_PARTICIPANTS, (conversation,)
    yield from announcements.insert(conversation, [(farewell(user), None) for user in members])
    return members


def _join(
    conversation: ConversationId, members: Sequence[tuple[NewMember, NewEntry]], members_max: int
) -> Plan[Sequence[UserId]]:
    if not (yield SELECT_CONVERSATION, (conversation,)):
        return []
    rows = yield from in_bulk(INSERT_PARTICIPANTS, [_member_row(conversation, member, began=None) for member, _ in members])
    new = {UserId(str(user)): None for (user,) in rows}
    ((count,),) = yield COUNT_PARTICIPANTS, (conversation,)
    if cast("int", count) > members_max:
        raise GroupFull(f"A group has at most {members_max} members", details={"field": "user_ids", "limit": members_max})
    joined = [(entry, member.user) for member, entry in members if member.user in new]
    yield from announcements.insert(conversation, joined)
    return [user for _, user in joined]


def _leave(
    conversation: ConversationId, user: UserId, entry: NewEntry, promotion: Callable[[UserId], NewEntry]
) -> Plan[Departure | None]:
    rows = yield DELETE_PARTICIPANT, (conversation, user)
    if not rows:
        return None
    heir = None
    if not (yield from _has_other_admin(conversation, user)):
        longest = yield SELECT_LONGEST_MEMBER, (conversation,)
        heir = UserId(str(longest[0][0])) if longest else None
    yield from announcements.insert(conversation, [(entry, None)])
    if heir is not None:
        yield UPDATE_ROLE, (conversation, heir, "admin")
        yield from announcements.insert(conversation, [(promotion(heir), None)])
    return Departure(heir)


def _set_role(conversation: ConversationId, user: UserId, role: Role, entry: NewEntry) -> Plan[bool | None]:
    rows = yield SELECT_ROLE, (conversation, user)
    if not rows:
        return None
    if rows[0][0] == role:
        return False
    if role != "admin" and not (yield from _has_other_admin(conversation, user)):
        raise LastAdmin("A group keeps at least one admin", details={"field": "role"})
    yield UPDATE_ROLE, (conversation, user, role)
    yield from announcements.insert(conversation, [(entry, None)])
    return True


def _has_other_admin(conversation: ConversationId, user: UserId) -> Plan[bool]:
    ((count,),) = yield COUNT_OTHER_ADMINS, (conversation, user)
    return bool(count)


def _rows(text: str, values: Sequence[Value]) -> Plan[list[Row]]:
    rows = yield text, values
    return rows


def _settings_row(s: Settings) -> tuple[Value, ...]:
    return (
        int(s.is_e2ee_enabled),
        int(s.ai_enabled),
        int(s.recording_enabled),
        s.message_retention_days,
        int(s.members_may_invite),
        s.history_visibility,
    )


def _member_row(conversation: ConversationId, member: NewMember, *, began: int | None) -> tuple[Value, ...]:
    return conversation, member.user, member.role, member.joined_us, member.visible_from, began


def _conversation(row: Row) -> Conversation:
    key, type_, title, avatar_url, created_by, created_us, updated_us, e2ee, ai, recording, days, invite, history = cast(
        "tuple[ConversationId, ConversationType, str | None, str | None, UserId, int, int, int, int, int, int, int, "
        "HistoryVisibility]",
        row,
    )
    settings = Settings(bool(e2ee), bool(ai), bool(recording), days, bool(invite), history)
    return Conversation(key, type_, title, avatar_url, created_by, created_us, updated_us, settings)


def _summary(row: Row) -> Summary:
    rest = row[CONVERSATION_COLUMNS:]
    role, participants, tail, messages, active_us = cast("tuple[Role, int, int, int, int]", rest[:5])
    peer = profile(rest[5:]) if rest[5] is not None else None
    return Summary(_conversation(row[:CONVERSATION_COLUMNS]), role, participants, tail, messages, active_us, peer)


def _participant(row: Row) -> Participant:
    role, joined_us, user, *face = row
    known = profile(face) if face[0] is not None else profile((user, "", "", None, "deleted"))
    return Participant(cast("Role", role), cast("int", joined_us), known)


def _standing(row: Row) -> Standing:
    conversation, type_, created_by, e2ee, ai, invite, user, role, joined_us, visible_from, began = cast(
        "tuple[ConversationId, ConversationType, UserId, int, int, int, UserId | None, Role, int, int | None, int | None]", row
    )
    rules = Rules(conversation, type_, created_by, bool(e2ee), bool(ai), bool(invite))
    if user is None:
        return Standing(rules, None)
    floor = SEES_NOTHING if visible_from is None else visible_from
    return Standing(rules, Membership(conversation, user, role, joined_us, floor, began))
