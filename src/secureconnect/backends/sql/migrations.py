"""Brings a database to the present schema: which steps are missing, and the plans that make them.

The version is a row per step in `schema_versions`, written in the step's own transaction: a crash half way leaves the version
before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.schema import MIGRATIONS, Migration
from secureconnect.errors import ConfigError

CREATE_VERSIONS: Final = "CREATE TABLE IF NOT EXISTS schema_versions (number BIGINT PRIMARY KEY, title TEXT NOT NULL)"
SELECT_VERSION: Final = "SELECT COALESCE(MAX(number), 0) FROM schema_versions"
INSERT_VERSION: Final = "INSERT INTO schema_versions (number, title) VALUES ($1, $2)"


def version() -> Plan[int]:
    """The number of the last step that this database has made; 0 when it is new."""
    yield CREATE_VERSIONS, ()
    rows = yield SELECT_VERSION, ()
    number = rows[0][0]
    assert isinstance(number, int)
    return number


def step(migration: Migration, words: Mapping[str, str]) -> Plan[None]:
    """One step. `words`: what this dialect puts for `bytes`, `clustered` and `serial`."""
    for statement in migration.statements:
        yield statement.format_map(words), ()
    yield INSERT_VERSION, (migration.number, migration.title)


def missing(present: int, *, place: str, migrations: Sequence[Migration] = MIGRATIONS) -> Sequence[Migration]:
    """The steps still to make. `place` names the database in the error.

    Raises: ConfigError when the database is newer than this program, which must not touch it then.
    """
    newest = migrations[-1].number
    if present > newest:
        raise ConfigError(
            f"{place} has schema version {present}, this program knows {newest}: it was used by a newer release. "
            "Start that release, or restore a backup from before the upgrade"
        )
    return [m for m in migrations if m.number > present]
