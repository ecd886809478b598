"""A chat the usual way on asyncio: aiosqlite with `synchronous=FULL`, a JWT per user, rooms in memory.

What the two chat peers share. It does the same visible work as our server for the calls measured, in the way a careful person
would write it with these libraries: one connection, one transaction per message, tokens checked on every request, JSON by the
standard library. In its favour: it asks nobody whether the sender is a member, and knows no idempotency keys.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import aiosqlite
import jwt

SECRET = "bench-secret-of-at-least-32-bytes!!"
SCHEMA = """
CREATE TABLE messages (
  conversation_id TEXT NOT NULL, sequence INTEGER NOT NULL, message_id TEXT NOT NULL, sender_id TEXT NOT NULL,
  content TEXT NOT NULL, sent_at INTEGER NOT NULL, PRIMARY KEY (conversation_id, sequence)) WITHOUT ROWID;
"""
APPEND = """
INSERT INTO messages SELECT ?1, coalesce(max(sequence), 0) + 1, ?2, ?3, ?4, ?5 FROM messages WHERE conversation_id = ?1
RETURNING sequence
"""


def token_for(user_id: str) -> str:
    return jwt.encode({"sub": user_id, "exp": int(time.time()) + 86_400}, SECRET, algorithm="HS256")


def user_of(token: str) -> str:
    """Raises jwt.InvalidTokenError."""
    return str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])


class Store:
    """Messages on disk. `changed[conversation]` is set and replaced at each new one, for the long polls."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._database: aiosqlite.Connection | None = None
        self.changed: dict[str, asyncio.Event] = {}

    async def open(self) -> None:
        self._database = await aiosqlite.connect(self._path, isolation_level=None)
        await self._database.execute("PRAGMA journal_mode=WAL")
        await self._database.execute("PRAGMA synchronous=FULL")
        await self._database.executescript(SCHEMA)

    async def append(self, conversation: str, sender: str, content: str) -> dict[str, Any]:
        """One statement is one transaction, on disk when this returns, with a dense number per conversation."""
        assert self._database is not None
        row = (conversation, str(uuid.uuid4()), sender, content, time.time_ns() // 1000)
        ((sequence,),) = await self._database.execute_fetchall(APPEND, row)  # one hop to the thread and back
        event = self.changed.pop(conversation, None)
        if event is not None:
            event.set()
        return _message((conversation, sequence, *row[1:]))

    async def page(self, conversation: str, after: int, limit: int, *, newest: bool) -> list[dict[str, Any]]:
        assert self._database is not None
        order = "DESC" if newest else "ASC"
        sql = f"SELECT * FROM messages WHERE conversation_id = ? AND sequence > ? ORDER BY sequence {order} LIMIT ?"
        rows = await self._database.execute_fetchall(sql, (conversation, after, limit))
        return [_message(row) for row in rows]

    async def newer(self, conversation: str, after: int, wait_s: float) -> list[dict[str, Any]]:
        """Long poll: what is newer than `after`, waiting for it if there is nothing."""
        event = self.changed.setdefault(conversation, asyncio.Event())
        found = await self.page(conversation, after, 100, newest=False)
        if found:
            return found
        try:
            await asyncio.wait_for(event.wait(), wait_s)
        except TimeoutError:
            return []
        return await self.page(conversation, after, 100, newest=False)


def _message(row: tuple[object, ...]) -> dict[str, Any]:
    conversation, sequence, message_id, sender, content, sent_at = row
    return {
        "message_id": message_id,
        "conversation_id": conversation,
        "sender_id": sender,
        "content": content,
        "sent_at": sent_at,
        "sequence": sequence,
    }


def event_of(message: dict[str, Any]) -> dict[str, Any]:
    channel = f"conversation:{message['conversation_id']}"
    return {"event": "message.created", "channel": channel, "sequence": message["sequence"], "data": message}


def enveloped(data: object) -> dict[str, Any]:
    return {"success": True, "data": data, "meta": {"timestamp": time.time(), "request_id": str(uuid.uuid4())}}


dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""Compact, as the socket's clients expect, and made once."""


def answer(frame_id: object, result: object) -> str:
    return dumps({"id": frame_id, "result": result})
