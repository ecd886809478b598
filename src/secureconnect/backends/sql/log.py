"""The conversation log in SQL: dense, atomic, idempotent appends, many conversations in one transaction.

An append is four statements whatever its size: which keys are known, the heads counted up, the entries, the messages. The
transaction's isolation makes them one step. A message's body lives once, in `messages`, and replay joins it; an edit or a
deletion changes that row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias, cast

from secureconnect.backends.sql.bulk import in_bulk
from secureconnect.backends.sql.engine import Engine, Plan, Row, Value
from secureconnect.features.log.draft import Draft, draft, is_new_message
from secureconnect.features.log.model import (
    MESSAGE_CREATED,
    MESSAGE_DELETED,
    Appended,
    Entry,
    Head,
    LogPage,
    NewEntry,
)
from secureconnect.features.log.store import EntryRefused
from secureconnect.ids import ConversationId, MessageId, UserId

Append: TypeAlias = tuple[ConversationId, Sequence[NewEntry]]
Answer: TypeAlias = Sequence[Appended] | EntryRefused

ENTRIES: Final = """
    SELECT e.conversation_id, e.sequence, e.message_number, e.kind, COALESCE(e.data, m.body),
        e.key, e.actor, e.at_us, e.message_id
    FROM entries e LEFT JOIN messages m ON m.conversation_id = e.conversation_id AND m.message_number = e.message_number
"""
SELECT_KNOWN: Final = ENTRIES + "JOIN (VALUES {rows}) AS k ON e.conversation_id = k.column1 AND e.key = k.column2"
SELECT_AFTER: Final = ENTRIES + "WHERE e.conversation_id = $1 AND e.sequence > $2 ORDER BY e.sequence LIMIT $3"
SELECT_DELETED: Final = (
    "SELECT m.conversation_id, m.message_id, m.deleted FROM (VALUES {rows}) AS k "
    "JOIN messages m ON m.message_id = k.column1 AND m.conversation_id = k.column2"
)
COUNT_HEADS: Final = """
    INSERT INTO heads (conversation_id, tail, messages, first, last_us) VALUES {rows}
    ON CONFLICT (conversation_id) DO UPDATE
    SET tail = heads.tail + excluded.tail, messages = heads.messages + excluded.messages, last_us = excluded.last_us
    RETURNING conversation_id, tail, messages
"""
INSERT_ENTRIES: Final = """
    INSERT INTO entries (conversation_id, sequence, message_number, kind, key, actor, at_us, message_id, data) VALUES {rows}
"""
INSERT_MESSAGES: Final = """
    INSERT INTO messages (conversation_id, message_number, sequence, message_id, actor, at_us, deleted, body) VALUES {rows}
"""
REPLACE_BODY: Final = "UPDATE messages SET body = $1 WHERE message_id = $2 AND conversation_id = $3"
MARK_DELETED: Final = "UPDATE messages SET deleted = 1 WHERE message_id = $1 AND conversation_id = $2"
REDACT_EDITS: Final = "UPDATE entries SET data = $1 WHERE conversation_id = $2 AND message_id = $3 AND kind = 'message.edited'"
SELECT_HEAD: Final = "SELECT tail, messages, first FROM heads WHERE conversation_id = $1"
SELECT_HEADS: Final = "SELECT conversation_id, tail, messages, first FROM heads WHERE conversation_id IN (VALUES {rows})"
MESSAGES: Final = "SELECT conversation_id, sequence, message_number, body, actor, at_us, message_id FROM messages "
SELECT_NEWEST: Final = MESSAGES + (
    "WHERE conversation_id = $1 AND message_number < $2 AND message_number > $3 ORDER BY message_number DESC LIMIT $4"
)
SELECT_MESSAGE: Final = MESSAGES + "WHERE message_id = $1 AND conversation_id = $2"
SELECT_NUMBER_BEFORE: Final = """
    SELECT message_number FROM entries WHERE conversation_id = $1 AND sequence < $2 AND message_number > 0
    ORDER BY sequence DESC LIMIT 1
"""
SELECT_PLACE: Final = "SELECT conversation_id FROM messages WHERE message_id = $1 LIMIT 1"

NUMBER_MAX: Final = 2**63 - 1


class SqlLogStore:
    """`LogStore` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        answer = await self._engine.write_together(append_all, (conversation, entries))
        if isinstance(answer, EntryRefused):
            raise answer
        return answer

    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        return await self._engine.read(partial(page, conversation, after, limit))

    async def heads(self, conversations: Sequence[ConversationId]) -> Mapping[ConversationId, Head]:
        return await self._engine.read(partial(heads_of, conversations))

    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]:
        return await self._engine.read(partial(newest, conversation, below, limit, floor))

    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None:
        rows = await self._engine.read(partial(_one, SELECT_MESSAGE, (message, conversation)))
        return _message(rows[0]) if rows else None

    async def locate(self, message: MessageId) -> ConversationId | None:
        rows = await self._engine.read(partial(_one, SELECT_PLACE, (message,)))
        return ConversationId(str(rows[0][0])) if rows else None


def append_all(appends: Sequence[Append]) -> Plan[Sequence[Answer]]:
    """Appends of several conversations, each whole or not at all. One conversation's second append sees its first one stored."""
    answers: dict[int, Answer] = {}
    while len(answers) < len(appends):
        turn: dict[ConversationId, int] = {}
        for place, (conversation, _) in enumerate(appends):
            if place not in answers:
                turn.setdefault(conversation, place)
        told = yield from _append_each([appends[place] for place in turn.values()])
        answers.update(zip(turn.values(), told, strict=True))
    return [answers[place] for place in range(len(appends))]


def _append_each(appends: Sequence[Append]) -> Plan[Sequence[Answer]]:
    """As `append_all`, for conversations that all differ."""
    known = yield from _known(appends)
    deleted = yield from _deleted(appends)
    drafts: dict[ConversationId, Draft] = {}
    refused: dict[ConversationId, EntryRefused] = {}
    for conversation, entries in appends:
        try:
            drafts[conversation] = draft(entries, known=known.get(conversation, {}), deleted=deleted.get(conversation, {}))
        except EntryRefused as error:
            refused[conversation] = error
    numbered = yield from _store(drafts)
    return [refused.get(c) or drafts[c].answers(numbered.get(c, ())) for c, _ in appends]


def _known(appends: Sequence[Append]) -> Plan[Mapping[ConversationId, Mapping[str, Entry]]]:
    rows = yield from in_bulk(SELECT_KNOWN, [(c, entry.key) for c, entries in appends for entry in entries])
    known: dict[ConversationId, dict[str, Entry]] = {}
    for entry in map(_entry, rows):
        known.setdefault(entry.conversation, {})[entry.key] = entry
    return known


def _deleted(appends: Sequence[Append]) -> Plan[Mapping[ConversationId, Mapping[MessageId, bool]]]:
    spoken_of = [
        (entry.message, c)
        for c, entries in appends
        for entry in entries
        if entry.message is not None and not is_new_message(entry)
    ]
    rows = yield from in_bulk(SELECT_DELETED, spoken_of)
    deleted: dict[ConversationId, dict[MessageId, bool]] = {}
    for conversation, message, flag in rows:
        deleted.setdefault(ConversationId(str(conversation)), {})[MessageId(str(message))] = bool(flag)
    return deleted


def _store(drafts: Mapping[ConversationId, Draft]) -> Plan[Mapping[ConversationId, Sequence[Entry]]]:
    counts = [(c, len(d.fresh), d.messages, 1, d.fresh[-1].at_us) for c, d in drafts.items() if d.fresh]
    heads = yield from in_bulk(COUNT_HEADS, counts)
    numbered: dict[ConversationId, Sequence[Entry]] = {}
    for conversation, tail, messages in cast("list[tuple[ConversationId, int, int]]", heads):
        made = drafts[conversation]
        numbered[conversation] = made.numbered(conversation, tail=tail - len(made.fresh), messages=messages - made.messages)
    stored = [entry for entries in numbered.values() for entry in entries]
    yield from in_bulk(INSERT_ENTRIES, [_entry_row(entry) for entry in stored])
    yield from in_bulk(INSERT_MESSAGES, [_message_row(entry) for entry in stored if entry.message_number])
    for conversation in numbered:
        for new in drafts[conversation].fresh:
            yield from _effects(conversation, new)
    return numbered


def _effects(conversation: ConversationId, new: NewEntry) -> Plan[None]:
    """What an edit or a deletion does to the message that it is about."""
    if new.message is None or new.kind == MESSAGE_CREATED:
        return
    if new.replacement is not None:
        yield REPLACE_BODY, (new.replacement, new.message, conversation)
    if new.kind == MESSAGE_DELETED:
        yield MARK_DELETED, (new.message, conversation)
    if new.redaction is not None:
        yield REDACT_EDITS, (new.redaction, conversation, new.message)


def page(conversation: ConversationId, after: int, limit: int) -> Plan[LogPage]:
    rows = yield SELECT_HEAD, (conversation,)
    head = Head(*cast("tuple[int, int, int]", rows[0])) if rows else Head()
    if limit <= 0 or after >= head.tail:
        return LogPage((), head)
    rows = yield SELECT_AFTER, (conversation, after, limit)
    return LogPage(tuple(map(_entry, rows)), head)


def heads_of(conversations: Sequence[ConversationId]) -> Plan[Mapping[ConversationId, Head]]:
    rows = yield from in_bulk(SELECT_HEADS, [(c,) for c in conversations])
    typed = cast("list[tuple[ConversationId, int, int, int]]", rows)
    return {conversation: Head(tail, messages, first) for conversation, tail, messages, first in typed}


def newest(conversation: ConversationId, below: int | None, limit: int, floor: int) -> Plan[Sequence[Entry]]:
    above = 0
    if floor > 1:
        rows = yield SELECT_NUMBER_BEFORE, (conversation, floor)
        above = cast("int", rows[0][0]) if rows else 0
    rows = yield SELECT_NEWEST, (conversation, NUMBER_MAX if below is None else below, above, limit)
    return [_message(row) for row in rows]


def _one(text: str, values: Sequence[Value]) -> Plan[list[Row]]:
    rows = yield text, values
    return rows


def _entry(row: Row) -> Entry:
    return Entry(*cast("tuple[ConversationId, int, int, str, bytes, str, UserId, int, MessageId | None]", row))


def _message(row: Row) -> Entry:
    conversation, sequence, number, body, actor, at_us, message = cast(
        "tuple[ConversationId, int, int, bytes, UserId, int, MessageId]", row
    )
    return Entry(conversation, sequence, number, MESSAGE_CREATED, body, message, actor, at_us, message)


def _entry_row(e: Entry) -> tuple[Value, ...]:
    data = None if e.message_number else e.data
    return e.conversation, e.sequence, e.message_number, e.kind, e.key, e.actor, e.at_us, e.message, data


def _message_row(e: Entry) -> tuple[Value, ...]:
    assert e.message is not None
    return e.conversation, e.message_number, e.sequence, e.message, e.actor, e.at_us, 0, e.data
