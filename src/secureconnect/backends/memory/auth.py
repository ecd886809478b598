"""Accounts, login sessions and revocations in memory. Every method is one step between two checkpoints, hence atomic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from secureconnect.features.auth.model import (
    Credentials,
    Ending,
    Exchange,
    LoginSession,
    Revocation,
    Rotation,
    User,
)
from secureconnect.features.auth.store import EmailTaken, UsernameTaken
from secureconnect.ids import SessionId, UserId


class MemoryRevocations:
    """The list that MemorySessions writes."""

    def __init__(self) -> None:
        self._rows: dict[int, Revocation] = {}
        self._number = 0

    async def since(self, number: int, *, live_us: int, limit: int) -> Sequence[Revocation]:
        await trio.lowlevel.checkpoint()
        rows = [row for row in self._rows.values() if row.number > number and row.until_us > live_us]
        return rows[:limit]

    def append(self, session: SessionId, user: UserId, ending: Ending) -> None:
        self._number += 1
        self._rows[self._number] = Revocation(
            self._number, session, user, ending.reason, at_us=ending.at_us, until_us=ending.until_us
        )

    def purge(self, before_us: int, *, limit: int) -> int:
        over = [number for number, row in self._rows.items() if row.until_us < before_us][:limit]
        for number in over:
            del self._rows[number]
        return len(over)


class MemorySessions:
    """Login sessions; their endings go to `revocations`."""

    def __init__(self, revocations: MemoryRevocations) -> None:
        self._revocations = revocations
        self._sessions: dict[SessionId, LoginSession] = {}

    def insert(self, session: LoginSession) -> None:
        self._sessions[session.id] = session

    async def begin(self, session: LoginSession, *, keep: int, surplus: Ending) -> Sequence[SessionId]:
        await trio.lowlevel.checkpoint()
        living = self._living(session.user, surplus.at_us)
        ended = [old.id for old in reversed(living[max(0, keep - 1) :])]
        for old in ended:
            self._end(old, surplus)
        self.insert(session)
        return ended

    async def rotate(self, session: SessionId, exchange: Exchange) -> Rotation:
        await trio.lowlevel.checkpoint()
        present = self._sessions.get(session)
        if present is None or not _lives(present, exchange.at_us):
            return Rotation("gone")
        if present.refresh_hash == exchange.presented:
            self._sessions[session] = replace(
                present,
                refresh_hash=exchange.replacement,
                previous_hash=exchange.presented,
                rotated_us=exchange.at_us,
                last_used_us=exchange.at_us,
                expires_us=exchange.expires_us,
            )
            return Rotation("rotated", exchange.at_us)
        repeats = present.previous_hash == exchange.presented and present.refresh_hash == exchange.replacement
        if repeats and present.rotated_us > exchange.repeat_after_us:
            return Rotation("repeated", present.rotated_us)
        self._end(session, exchange.reuse)
        return Rotation("reused")

    async def end(self, session: SessionId, user: UserId, ending: Ending) -> bool:
        await trio.lowlevel.checkpoint()
        present = self._sessions.get(session)
        if present is None or present.user != user or not _lives(present, ending.at_us):
            return False
        self._end(session, ending)
        return True

    async def session(self, session: SessionId) -> LoginSession | None:
        await trio.lowlevel.checkpoint()
        return self._sessions.get(session)

    async def sessions_of(self, user: UserId, *, now_us: int) -> Sequence[LoginSession]:
        await trio.lowlevel.checkpoint()
        return self._living(user, now_us)

    async def purge(self, before_us: int, *, limit: int) -> int:
        await trio.lowlevel.checkpoint()
        over = [
            session.id
            for session in self._sessions.values()
            if session.expires_us < before_us or (session.ended_us is not None and session.ended_us < before_us)
        ][:limit]
        for session_id in over:
            del self._sessions[session_id]
        return len(over) + self._revocations.purge(before_us, limit=limit)

    def _living(self, user: UserId, now_us: int) -> list[LoginSession]:
        living = [session for session in self._sessions.values() if session.user == user and _lives(session, now_us)]
        return sorted(living, key=lambda session: (session.last_used_us, session.created_us, session.id), reverse=True)

    def _end(self, session: SessionId, ending: Ending) -> None:
        present = self._sessions[session]
        self._sessions[session] = replace(present, ended_us=ending.at_us, end_reason=ending.reason)
        self._revocations.append(session, present.user, ending)


class MemoryUsers:
    """Accounts; the session that a registration opens goes to `sessions`."""

    def __init__(self, sessions: MemorySessions) -> None:
        self._sessions = sessions
        self._users: dict[UserId, Credentials] = {}
        self._by_email: dict[str, UserId] = {}
        self._by_username: dict[str, UserId] = {}

    async def add(self, user: User, password_hash: str, first: LoginSession | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if user.email in self._by_email:
            raise EmailTaken
        if user.username in self._by_username:
            raise UsernameTaken
        self._users[user.id] = Credentials(user, password_hash)
        self._by_email[user.email] = self._by_username[user.username] = user.id
        if first is not None:
            self._sessions.insert(first)

    async def user(self, user: UserId) -> User | None:
        await trio.lowlevel.checkpoint()
        return self._user(user)

    async def by_username(self, username: str) -> User | None:
        await trio.lowlevel.checkpoint()
        return self._user(self._by_username.get(username, UserId("")))

    async def credentials(self, email: str) -> Credentials | None:
        await trio.lowlevel.checkpoint()
        return self._users.get(self._by_email.get(email, UserId("")))

    async def replace_password_hash(self, user: UserId, old: str, new: str) -> bool:
        await trio.lowlevel.checkpoint()
        known = self._users.get(user)
        if known is None or known.password_hash != old:
            return False
        self._users[user] = Credentials(known.user, new)
        return True

    def _user(self, user: UserId) -> User | None:
        known = self._users.get(user)
        return None if known is None else known.user


def _lives(session: LoginSession, now_us: int) -> bool:
    return session.ended_us is None and session.expires_us > now_us
