"""An empty database on the real PostgreSQL, for the tests of its engine."""

from __future__ import annotations

import pytest

from secureconnect.testing.postgres_server import PostgresServer


@pytest.fixture
def server(postgres_server: PostgresServer) -> PostgresServer:
    """Its database `test` is new: no tables."""
    postgres_server.sql("DROP DATABASE IF EXISTS test WITH (FORCE)", database="postgres")
    postgres_server.sql("CREATE DATABASE test STRATEGY FILE_COPY", database="postgres")
    return postgres_server
