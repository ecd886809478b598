"""Every table there is, as numbered migrations: the one place where the shape of the database is written down.

Portable by three placeholders that the dialect fills in: `{bytes}` (BLOB, BYTEA), `{clustered}` (rows live in the primary key's
tree: `WITHOUT ROWID` in SQLite, nothing elsewhere) and `{serial}` (a primary key that the database counts up and never gives
twice; its INSERT leaves the column out and says RETURNING). Flags are SMALLINT 0 or 1, moments are integer microseconds since
1970 UTC (`…_us`), ids are text. A migration that was released is never changed: what comes later is a new one at the end.

No foreign keys: the log may live in another database than the conversations, and what belongs together is written in one plan.

Facts that several stores rely on:

- `participants.visible_from` is NULL from the membership's own transaction until its `member.joined` entry has its number (the
  announcement's `joined`); such a member may read nothing yet. Where history is open to all it is 1 from the start.
- `participants.joined_sequence` is the number of the entry with which the membership began: 1 for founders (their log begins
  with them), else NULL until `member.joined` has its number, and for ever in rows from before version 2.
- `entries.data` is NULL for `message.created`: a message's body lives once, in `messages`, and replay joins it, so that an edit
  or a deletion changes one row. A message's key in the log is its id.
- `heads.last_us` is the time of the last entry: lists of conversations are ordered by it.
- `revocations.number`, `locks.number` and `announcements.id` only grow, but with several writers a lower number may become
  visible after a higher one (not in SQLite): who reads "above n" overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from version `number - 1` to `number`: DDL statements that run in one transaction."""

    number: int
    title: str
    statements: tuple[str, ...]


ACCOUNTS: Final = (
    """CREATE TABLE users (
        user_id TEXT PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        username TEXT NOT NULL UNIQUE,
        display_name TEXT NOT NULL,
        avatar_url TEXT,
        password_hash TEXT NOT NULL,
        status TEXT NOT NULL,
        role TEXT NOT NULL,
        created_us BIGINT NOT NULL,
        updated_us BIGINT NOT NULL
    )""",
    """CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        refresh_hash {bytes} NOT NULL,
        previous_hash {bytes},
        rotated_us BIGINT NOT NULL,
        created_us BIGINT NOT NULL,
        last_used_us BIGINT NOT NULL,
        expires_us BIGINT NOT NULL,
        ended_us BIGINT,
        end_reason TEXT,
        device_id TEXT,
        user_agent TEXT,
        peer TEXT
    )""",
    "CREATE INDEX sessions_by_user ON sessions (user_id, created_us)",
    """CREATE TABLE revocations (
        number {serial},
        session_id TEXT NOT NULL UNIQUE,
        user_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        at_us BIGINT NOT NULL,
        until_us BIGINT NOT NULL
    )""",
    "CREATE INDEX revocations_by_end ON revocations (until_us)",
)

CONVERSATIONS: Final = (
    """CREATE TABLE conversations (
        conversation_id TEXT PRIMARY KEY,
        type TEXT NOT NULL,
        title TEXT,
        avatar_url TEXT,
        created_by TEXT NOT NULL,
        is_e2ee_enabled SMALLINT NOT NULL,
        ai_enabled SMALLINT NOT NULL,
        recording_enabled SMALLINT NOT NULL,
        message_retention_days BIGINT NOT NULL,
        members_may_invite SMALLINT NOT NULL,
        history_visibility TEXT NOT NULL,
        created_us BIGINT NOT NULL,
        updated_us BIGINT NOT NULL
    )""",
    """CREATE TABLE participants (
        conversation_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        role TEXT NOT NULL,
        joined_us BIGINT NOT NULL,
        visible_from BIGINT,
        PRIMARY KEY (conversation_id, user_id)
    ) {clustered}""",
    "CREATE INDEX participants_by_user ON participants (user_id)",
    """CREATE TABLE announcements (
        id {serial},
        conversation_id TEXT NOT NULL,
        key TEXT NOT NULL,
        kind TEXT NOT NULL,
        data {bytes} NOT NULL,
        actor TEXT NOT NULL,
        at_us BIGINT NOT NULL,
        joined TEXT
    )""",
    "CREATE INDEX announcements_by_conversation ON announcements (conversation_id, id)",
)

LOG: Final = (
    """CREATE TABLE heads (
        conversation_id TEXT PRIMARY KEY,
        tail BIGINT NOT NULL,
        messages BIGINT NOT NULL,
        first BIGINT NOT NULL,
        last_us BIGINT NOT NULL
    ) {clustered}""",
    """CREATE TABLE entries (
        conversation_id TEXT NOT NULL,
        sequence BIGINT NOT NULL,
        message_number BIGINT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        actor TEXT NOT NULL,
        at_us BIGINT NOT NULL,
        message_id TEXT,
        data {bytes},
        PRIMARY KEY (conversation_id, sequence)
    ) {clustered}""",
    "CREATE UNIQUE INDEX entries_by_key ON entries (conversation_id, key)",
    "CREATE INDEX entries_edits ON entries (message_id) WHERE kind = 'message.edited'",
    """CREATE TABLE messages (
        conversation_id TEXT NOT NULL,
        message_number BIGINT NOT NULL,
        sequence BIGINT NOT NULL,
        message_id TEXT NOT NULL,
        actor TEXT NOT NULL,
        at_us BIGINT NOT NULL,
        deleted SMALLINT NOT NULL,
        body {bytes} NOT NULL,
        PRIMARY KEY (conversation_id, message_number)
    ) {clustered}""",
    "CREATE UNIQUE INDEX messages_by_id ON messages (message_id, conversation_id)",
    """CREATE TABLE digests (
        node TEXT NOT NULL,
        epoch BIGINT NOT NULL,
        number BIGINT NOT NULL,
        at_us BIGINT NOT NULL,
        data {bytes} NOT NULL,
        PRIMARY KEY (node, epoch, number)
    ) {clustered}""",
    """CREATE TABLE probes (
        node TEXT PRIMARY KEY,
        at_us BIGINT NOT NULL
    ) {clustered}""",
)

LOCKS: Final = (
    """CREATE TABLE locks (
        number {serial},
        key TEXT NOT NULL,
        until_us BIGINT NOT NULL
    )""",
    "CREATE INDEX locks_by_key ON locks (key, until_us)",
    "CREATE INDEX locks_by_end ON locks (until_us)",
)

MIGRATIONS: Final = (
    Migration(1, "accounts, conversations, the log", (*ACCOUNTS, *CONVERSATIONS, *LOG)),
    Migration(2, "where each membership began", ("ALTER TABLE participants ADD COLUMN joined_sequence BIGINT",)),
    Migration(3, "locked accounts", LOCKS),
)
