"""What asyncpg's errors mean to us, in one table of SQLSTATEs. Nobody else names them.

The words that people may see carry no SQL, no host and no path; the driver's error is chained for the log. A statement's own
fault (its syntax, a constraint that a plan did not expect) passes unchanged: it is a bug, never an outage.
"""

from __future__ import annotations

import ssl
from typing import Any, Final, Literal

import asyncpg

from secureconnect.errors import (
    BackendDown,
    BadRequest,
    ConfigError,
    DeadlineExceeded,
    OutcomeUnknown,
    StorageFull,
)
from secureconnect.resilience import Contention

DRIVER: Final = (
    OSError,  # TimeoutError too
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
Stage = Literal["dial", "begin", "work", "commit"]

CONTENTION: Final = frozenset({"40001", "40P01"})
UNKNOWN: Final = "40003"
"""statement_completion_unknown: CockroachDB's word for a lost commit."""
CANCELED: Final = "57014"
"""The server's own `statement_timeout`."""
FULL: Final = frozenset({"53100"})
NUL: Final = "22021"
"""Text that PostgreSQL cannot keep: U+0000."""
SETUP: Final = {
    "28000": "the server does not let this user in: check user, password and pg_hba.conf",
    "28P01": "the password is wrong",
    "3D000": "there is no such database: create it first",
    "42501": "this user may not create tables: make it the owner of the database, or of a schema in its search_path",
    "3F000": "there is no schema to create tables in: check the user's search_path",
}
"""What an operator must mend before the server can start."""
AWAY: Final = ("08", "53", "57", "58", "XX001", "XX002", "25006", "25P03")
"""Beginnings: no connection, no resources, being shut down, a disk that fails, a damaged file, a replica for a primary."""


class NeverBegan(BackendDown):
    """The connection was dead before the transaction began: nothing was sent, so another connection may be tried at once."""


def meaning(error: BaseException, *, stage: Stage, is_open: bool) -> BaseException:
    """`error` in the house's words, or unchanged when it is a bug. `is_open`: the connection survived it."""
    state = sqlstate(error)
    if stage == "commit" and not isinstance(error, asyncpg.PostgresError):
        return OutcomeUnknown("The connection was lost while storing; it may be stored", details=_SQL)
    if state in CONTENTION or isinstance(error, asyncpg.InvalidCachedStatementError):
        return Contention("Another change came first", details=_SQL)
    if state == UNKNOWN or (stage == "commit" and is_away(error, is_open=is_open)):
        return OutcomeUnknown("The database did not say whether it is stored", details=_SQL)
    if state in FULL:
        return StorageFull("sql", "The database's disk is full, nothing was stored")
    if state == CANCELED:
        return DeadlineExceeded("The database gave a statement up that took too long", details=_SQL)
    if state == NUL:
        return BadRequest("Text cannot hold the character U+0000")
    if is_away(error, is_open=is_open):
        return (NeverBegan if stage == "begin" else BackendDown)("sql", "The database is not available")
    return error


def at_start(error: BaseException, *, place: str) -> BaseException:
    """The same while the schema is being brought up to date; what an operator must mend is a ConfigError."""
    cure = SETUP.get(sqlstate(error) or "")
    if isinstance(error, ssl.SSLCertVerificationError):
        cure = "the server's certificate is not trusted: name its authority, sslrootcert=FILE, in SQL_URL"
    if cure is not None:
        return ConfigError(f"{place}: {cure}")
    return meaning(error, stage="dial", is_open=False)


def is_away(error: BaseException, *, is_open: bool) -> bool:
    """The server, or the way to it, did not do its part."""
    if not is_open or isinstance(error, OSError):
        return True
    state = sqlstate(error)
    return state is not None and state != CANCELED and state.startswith(AWAY)


def sqlstate(error: BaseException) -> str | None:
    """The server's code; None when the server said nothing. A dial that was tried twice carries it in its cause."""
    state: Any = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and state and not str(state).startswith("08"):
        return str(state)
    cause = error.__cause__
    return sqlstate(cause) if isinstance(cause, asyncpg.PostgresError) else (str(state) if state else None)


_SQL: Final = {"dependency": "sql"}
