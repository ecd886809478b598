"""Accounts, login sessions and revocations in SQL.

What must be atomic is one plan; each decision in it is one conditional UPDATE, so that it holds under any isolation from READ
COMMITTED upwards (the number of sessions of a user who logs in twice at once needs SERIALIZABLE, which SQLite always is).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from secureconnect.backends.sql.engine import Engine, Plan, Row, Value
from secureconnect.features.auth.model import (
    Credentials,
    Device,
    Ending,
    EndReason,
    Exchange,
    LoginSession,
    Revocation,
    Rotation,
    User,
)
from secureconnect.features.auth.store import EmailTaken, UsernameTaken
from secureconnect.ids import SessionId, UserId

_USER: Final = "user_id, email, username, display_name, avatar_url, status, role, created_us, updated_us"
INSERT_USER: Final = (
    f"INSERT INTO users ({_USER}, password_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
    "ON CONFLICT DO NOTHING RETURNING user_id"
)
EMAIL_EXISTS: Final = "SELECT 1 FROM users WHERE email = $1"
SELECT_USER: Final = f"SELECT {_USER} FROM users WHERE user_id = $1"
SELECT_BY_USERNAME: Final = f"SELECT {_USER} FROM users WHERE username = $1"
SELECT_CREDENTIALS: Final = f"SELECT {_USER}, password_hash FROM users WHERE email = $1"
REPLACE_HASH: Final = "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2 RETURNING user_id"

_SESSION: Final = (
    "session_id, user_id, refresh_hash, previous_hash, created_us, rotated_us, last_used_us, expires_us, ended_us, end_reason, "
    "device_id, user_agent, peer"
)
_LIVING: Final = "ended_us IS NULL AND expires_us >"
INSERT_SESSION: Final = f"INSERT INTO sessions ({_SESSION}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
SELECT_SESSION: Final = f"SELECT {_SESSION} FROM sessions WHERE session_id = $1"
SELECT_LIVING: Final = (
    f"SELECT {_SESSION} FROM sessions WHERE user_id = $1 AND {_LIVING} $2 "
    "ORDER BY last_used_us DESC, created_us DESC, session_id DESC"
)
ROTATE: Final = (
    "UPDATE sessions SET refresh_hash = $3, previous_hash = $2, rotated_us = $4, last_used_us = $4, expires_us = $5 "
    f"WHERE session_id = $1 AND refresh_hash = $2 AND {_LIVING} $4 RETURNING session_id"
)
REPEATED: Final = (
    "SELECT rotated_us FROM sessions WHERE session_id = $1 AND previous_hash = $2 AND refresh_hash = $3 "
    f"AND rotated_us > $4 AND {_LIVING} $5"
)
END_SESSION: Final = (
    f"UPDATE sessions SET ended_us = $2, end_reason = $3 WHERE session_id = $1 AND {_LIVING} $2 RETURNING user_id"
)
OWNED: Final = "SELECT 1 FROM sessions WHERE session_id = $1 AND user_id = $2"
INSERT_REVOCATION: Final = (
    "INSERT INTO revocations (session_id, user_id, reason, at_us, until_us) VALUES ($1, $2, $3, $4, $5) "
    "ON CONFLICT DO NOTHING RETURNING number"
)
SELECT_REVOCATIONS: Final = (
    "SELECT number, session_id, user_id, reason, at_us, until_us FROM revocations "
    "WHERE number > $1 AND until_us > $2 ORDER BY number LIMIT $3"
)
PURGE_SESSIONS: Final = (
    "DELETE FROM sessions WHERE session_id IN "
    "(SELECT session_id FROM sessions WHERE expires_us < $1 OR ended_us < $1 LIMIT $2) RETURNING session_id"
)
PURGE_REVOCATIONS: Final = (
    "DELETE FROM revocations WHERE number IN (SELECT number FROM revocations WHERE until_us < $1 LIMIT $2) RETURNING number"
)


class SqlUsers:
    """Accounts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, user: User, password_hash: str, first: LoginSession | None = None) -> None:
        await self._engine.write(lambda: _add(user, password_hash, first))

    async def user(self, user: UserId) -> User | None:
        return await self._engine.read(lambda: _one_user(SELECT_USER, user))

    async def by_username(self, username: str) -> User | None:
        return await self._engine.read(lambda: _one_user(SELECT_BY_USERNAME, username))

    async def credentials(self, email: str) -> Credentials | None:
        return await self._engine.read(lambda: _credentials(email))

    async def replace_password_hash(self, user: UserId, old: str, new: str) -> bool:
        return await self._engine.write(lambda: _changed(REPLACE_HASH, user, old, new))


class SqlSessions:
    """Login sessions, and the revocations that their endings are."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def begin(self, session: LoginSession, *, keep: int, surplus: Ending) -> Sequence[SessionId]:
        return await self._engine.write(lambda: _begin(session, keep, surplus))

    async def rotate(self, session: SessionId, exchange: Exchange) -> Rotation:
        return await self._engine.write(lambda: _rotate(session, exchange))

    async def end(self, session: SessionId, user: UserId, ending: Ending) -> bool:
        return await self._engine.write(lambda: _end_own(session, user, ending))

    async def session(self, session: SessionId) -> LoginSession | None:
        return await self._engine.read(lambda: _one_session(session))

    async def sessions_of(self, user: UserId, *, now_us: int) -> Sequence[LoginSession]:
        return await self._engine.read(lambda: _living(user, now_us))

    async def purge(self, before_us: int, *, limit: int) -> int:
        return await self._engine.write(lambda: _purge(before_us, limit))


class SqlRevocations:
    """The revocations, to be followed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def since(self, number: int, *, live_us: int, limit: int) -> Sequence[Revocation]:
        return await self._engine.read(lambda: _since(number, live_us, limit))


def _add(user: User, password_hash: str, first: LoginSession | None) -> Plan[None]:
    values: tuple[Value, ...] = (
        user.id,
        user.email,
        user.username,
        user.display_name,
        user.avatar_url,
        user.status,
        user.role,
        user.created_us,
        user.updated_us,
        password_hash,
    )
    added = yield INSERT_USER, values
    if not added:
        taken = yield EMAIL_EXISTS, (user.email,)
        raise EmailTaken if taken else UsernameTaken
    if first is not None:
        yield INSERT_SESSION, _session_values(first)


def _one_user(statement: str, value: str) -> Plan[User | None]:
    rows = yield statement, (value,)
    return _user(rows[0]) if rows else None


def _credentials(email: str) -> Plan[Credentials | None]:
    rows = yield SELECT_CREDENTIALS, (email,)
    return Credentials(_user(rows[0][:-1]), cast("str", rows[0][-1])) if rows else None


def _changed(statement: str, *values: Value) -> Plan[bool]:
    rows = yield statement, values
    return bool(rows)


def _begin(session: LoginSession, keep: int, surplus: Ending) -> Plan[list[SessionId]]:
    living = yield from _living(session.user, surplus.at_us)
    ended = [old.id for old in reversed(living[max(0, keep - 1) :])]
    for old in ended:
        yield from _end(old, surplus)
    yield INSERT_SESSION, _session_values(session)
    return ended


def _rotate(session: SessionId, exchange: Exchange) -> Plan[Rotation]:
    presented, replacement, at_us = exchange.presented, exchange.replacement, exchange.at_us
    rotated = yield ROTATE, (session, presented, replacement, at_us, exchange.expires_us)
    if rotated:
        return Rotation("rotated", at_us)
    repeated = yield REPEATED, (session, presented, replacement, exchange.repeat_after_us, at_us)
    if repeated:
        return Rotation("repeated", cast("int", repeated[0][0]))
    ended = yield from _end(session, exchange.reuse)
    return Rotation("reused" if ended else "gone")


def _end(session: SessionId, ending: Ending) -> Plan[bool]:
    """The session's end and its revocation; False: it did not live."""
    rows = yield END_SESSION, (session, ending.at_us, ending.reason)
    if rows:
        yield INSERT_REVOCATION, (session, rows[0][0], ending.reason, ending.at_us, ending.until_us)
    return bool(rows)


def _end_own(session: SessionId, user: UserId, ending: Ending) -> Plan[bool]:
    owned = yield OWNED, (session, user)
    return (yield from _end(session, ending)) if owned else False


def _one_session(session: SessionId) -> Plan[LoginSession | None]:
    rows = yield SELECT_SESSION, (session,)
    return _session(rows[0]) if rows else None


def _living(user: UserId, now_us: int) -> Plan[list[LoginSession]]:
    rows = yield SELECT_LIVING, (user, now_us)
    return [_session(row) for row in rows]


def _purge(before_us: int, limit: int) -> Plan[int]:
    sessions = yield PURGE_SESSIONS, (before_us, limit)
    revocations = yield PURGE_REVOCATIONS, (before_us, limit)
    return len(sessions) + len(revocations)


def _since(number: int, live_us: int, limit: int) -> Plan[list[Revocation]]:
    rows = yield SELECT_REVOCATIONS, (number, live_us, limit)
    return [_revocation(row) for row in rows]


def _user(row: Row) -> User:
    user_id, email, username, display_name, avatar_url, status, role, created_us, updated_us = row
    return User(
        id=UserId(cast("str", user_id)),
        email=cast("str", email),
        username=cast("str", username),
        display_name=cast("str", display_name),
        created_us=cast("int", created_us),
        updated_us=cast("int", updated_us),
        avatar_url=cast("str | None", avatar_url),
        status=cast("str", status),
        role=cast("str", role),
    )


def _session_values(session: LoginSession) -> tuple[Value, ...]:
    return (
        session.id,
        session.user,
        session.refresh_hash,
        session.previous_hash,
        session.created_us,
        session.rotated_us,
        session.last_used_us,
        session.expires_us,
        session.ended_us,
        session.end_reason,
        session.device.device_id,
        session.device.user_agent,
        session.device.address,
    )


def _session(row: Row) -> LoginSession:
    (session_id, user_id, refresh_hash, previous_hash, created_us, rotated_us, last_used_us, expires_us, *rest) = row
    ended_us, end_reason, device_id, user_agent, peer = rest
    return LoginSession(
        id=SessionId(cast("str", session_id)),
        user=UserId(cast("str", user_id)),
        refresh_hash=cast("bytes", refresh_hash),
        created_us=cast("int", created_us),
        rotated_us=cast("int", rotated_us),
        last_used_us=cast("int", last_used_us),
        expires_us=cast("int", expires_us),
        device=Device(cast("str | None", device_id), cast("str | None", user_agent), cast("str | None", peer)),
        previous_hash=cast("bytes | None", previous_hash),
        ended_us=cast("int | None", ended_us),
        end_reason=cast("EndReason | None", end_reason),
    )


def _revocation(row: Row) -> Revocation:
    number, session_id, user_id, reason, at_us, until_us = row
    return Revocation(
        number=cast("int", number),
        session=SessionId(cast("str", session_id)),
        user=UserId(cast("str", user_id)),
        reason=cast("EndReason", reason),
        at_us=cast("int", at_us),
        until_us=cast("int", until_us),
    )
