"""Real servers for the suites of the backends, started once for all who ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.backends.sql.postgres_kit import need_postgres

from secureconnect.testing.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for tests that do not break it."""
    need_postgres()
    server = PostgresServer(durable=False)
    try:
        server.create()
        yield server
    finally:
        server.remove()
