"""Real servers for the suites of the backends, started once for all who ask."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from secureconnect.testing.postgres_server import PostgresServer, programs


def need_postgres() -> None:
    """Skip, or in CI fail, where there is no PostgreSQL."""
    if programs() is None:
        missing = "these tests need PostgreSQL: apt-get install postgresql"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


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
