"""One SQLite database file: how a connection is opened and set, how a plan runs on it, and what its errors mean to us.

Only this page knows sqlite3's exceptions. At the start everything that an operator must repair is a ConfigError that names the
file and the cure; later it is StorageFull or BackendDown.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from secureconnect.backends.sql import migrations
from secureconnect.backends.sql.engine import Plan
from secureconnect.errors import BackendDown, ConfigError, OutcomeUnknown, SecureConnectError, StorageFull

T = TypeVar("T")

BUSY_MS: Final = 1_000
"""How long a writer waits for another process (a command of the same program); below one attempt's 1.5 s."""
CHECKPOINT_PAGES: Final = 12_000
"""At 48 MiB a commit copies the write-ahead log itself: a bound, should sqlite_checkpoint.py not keep up."""
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
WRITER_CACHE_KIB: Final = 32 * 1024
READER_CACHE_KIB: Final = 8 * 1024
CHECKPOINTER_CACHE_KIB: Final = 256
STATEMENTS_MAX: Final = 256
"""Prepared statements kept by a connection; there are about 100 texts, those with many rows counted by powers of two."""
CHECKED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Files up to this size are checked whole at the start (about 0.1 s); damage in larger ones shows when it is met."""

WORDS: Final = {"bytes": "BLOB", "clustered": "WITHOUT ROWID", "serial": "INTEGER PRIMARY KEY AUTOINCREMENT"}
CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
STATEMENTS_OWN: Final = frozenset({0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})
"""A statement's own fault, or the driver's complaint about us: bugs, never outages."""
UNWRITABLE: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})


@dataclass(frozen=True, slots=True)
class Opened:
    """The one writing connection, the one that copies its log into the file, and those that can only read."""

    writer: sqlite3.Connection
    checkpointer: sqlite3.Connection
    readers: Sequence[sqlite3.Connection]


def open_all(path: Path, *, readers: int, synchronous: str = "FULL") -> Opened:
    """All connections to `path`, its schema brought up to date. Blocks.

    `synchronous` is FULL wherever acknowledged means durable; tests that prove it set less.
    Raises: ConfigError, BackendDown (another process holds the lock), StorageFull.
    """
    opened: list[sqlite3.Connection] = []
    try:
        opened.append(_connect(path, WRITER_CACHE_KIB))
        _prepare_writer(opened[0], path, synchronous)
        opened.append(_connect(path, CHECKPOINTER_CACHE_KIB))
        opened[1].execute(f"PRAGMA synchronous={synchronous}")
        for _ in range(readers):
            opened.append(_connect(path, READER_CACHE_KIB))
            opened[-1].execute("PRAGMA query_only=ON")
    except BaseException as error:
        for connection in opened:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise at_start(error, path) from error
        raise
    return Opened(opened[0], opened[1], opened[2:])


def _prepare_writer(connection: sqlite3.Connection, path: Path, synchronous: str) -> None:
    _check(connection, path)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
    connection.execute("PRAGMA secure_delete=ON")  # what is redacted leaves the file too
    _migrate(connection, path)


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS_MAX
    )
    try:
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        raise ConfigError(f"{path} cannot use a write-ahead log (journal mode {mode}): put DATA_DIR on a local disk")
    if path.stat().st_size <= CHECKED_BYTES_MAX:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise BackendDown("sql", f"{path} is damaged ({verdict.splitlines()[-1]}): {_REPAIR}", retry_after_s=None)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    def transaction(plan: Plan[T]) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = run(connection, plan)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    for migration in migrations.missing(transaction(migrations.version()), place=str(path)):
        transaction(migrations.step(migration, WORDS))


def run(connection: sqlite3.Connection, plan: Plan[T]) -> T:
    """Run a plan to its end inside the connection's present transaction. Raises what it raises, and sqlite3.Error."""
    try:
        text, values = next(plan)
        while True:
            text, values = plan.send(connection.execute(translated(text), values).fetchall())
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        plan.close()


@lru_cache(maxsize=1_024)
def translated(text: str) -> str:
    """`$1` as SQLite writes it, `?1`. Texts are constants without a dollar sign in quotes."""
    return re.sub(r"\$(\d+)", r"?\1", text)


_REPAIR: Final = (
    "stop the server, keep a copy, then restore a backup or try `sqlite3 FILE .recover`; move the file away to start empty"
)


def at_start(error: sqlite3.Error, path: Path) -> SecureConnectError:
    """What an error means while the file is being opened."""
    kind = _kind(error)
    if kind in CORRUPT:
        return BackendDown("sql", f"{path} is not a usable database ({error}): {_REPAIR}", retry_after_s=None)
    if kind in UNWRITABLE:
        return ConfigError(
            f"{path} cannot be opened for writing ({error}): the directory of DATA_DIR must exist, and this user must be allowed "
            "to write to it and to the files in it"
        )
    return at_work(error, path)


def meaning(error: BaseException, path: Path, *, committing: bool = False) -> BaseException:
    """What a transaction's error is called above this page: an outage has our name; a plan's own and a bug stay as they are."""
    if not isinstance(error, sqlite3.Error) or _kind(error) in STATEMENTS_OWN:
        return error
    named = at_work(error, path, committing=committing)
    named.__cause__ = error
    return named


def at_work(error: sqlite3.Error, path: Path, *, committing: bool = False) -> SecureConnectError:
    """What an error means later. `committing`: it came from COMMIT, so an I/O error leaves open what a restart will find."""
    kind = _kind(error)
    if kind == sqlite3.SQLITE_FULL:
        return StorageFull("sql", "The disk is full, nothing was stored", inside=str(path))
    if kind == sqlite3.SQLITE_READONLY:
        return StorageFull("sql", "The database cannot be written, nothing was stored", inside=f"{path} ({error})")
    if kind == sqlite3.SQLITE_IOERR and committing:
        return OutcomeUnknown("The disk failed while storing", details={"dependency": "sql"}, inside=f"{path} ({error})")
    if kind == sqlite3.SQLITE_IOERR:
        return StorageFull("sql", "The disk failed, nothing was stored", inside=f"{path} ({error})")
    if kind in LOCKED:
        cure = "locked by another process: stop it, or wait until it is done"
        return BackendDown("sql", "The database is locked", inside=f"{path} is {cure}")
    if kind in CORRUPT:
        return BackendDown("sql", "The database is damaged", inside=f"{path} ({error}): {_REPAIR}", retry_after_s=None)
    return BackendDown("sql", "The database failed", inside=f"{path}: {error}")


def _kind(error: sqlite3.Error) -> int:
    """The primary result code: the low byte of the extended one. 0 when the driver itself complains."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
