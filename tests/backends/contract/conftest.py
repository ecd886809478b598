"""What the contract suites run against: each test once in memory, once on a SQLite file, once on a real PostgreSQL.

A suite makes its stores from `engine`: None means the memory implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.backends.sql.postgres import open_postgres
from secureconnect.backends.sql.schema import MIGRATIONS
from secureconnect.backends.sql.sqlite import open_sqlite
from secureconnect.testing.postgres_server import PostgresServer


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.service)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine | None]:
    """The database under test, empty; None: there is none, use the memory stores."""
    if request.param == "memory":
        yield None
        return
    if request.param == "sqlite":
        async with open_sqlite(tmp_path / "contract.sqlite3", synchronous="OFF") as opened:  # durability is tests/crash's matter
            yield opened
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    async with open_postgres(server.url, random=lambda: 0.5) as postgres:
        engine = postgres.engine("chat")
        await engine.write(empty)
        yield engine


def empty() -> Plan[None]:
    """No rows in any table, and numbers from 1, as in a new database."""
    created = [text.split()[2] for migration in MIGRATIONS for text in migration.statements if text.startswith("CREATE TABLE")]
    yield f"TRUNCATE {', '.join(created)} RESTART IDENTITY", ()
