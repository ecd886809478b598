"""Migrations on a real PostgreSQL: whole or not at all, in order, once, whoever starts at the same moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio

from secureconnect.backends.bridge import open_bridge
from secureconnect.backends.sql.postgres import open_postgres
from secureconnect.backends.sql.postgres_connection import Address, Connection, dial
from secureconnect.backends.sql.postgres_schema import migrate, next_step
from secureconnect.backends.sql.schema import MIGRATIONS, Migration
from secureconnect.errors import ConfigError
from secureconnect.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.service

NEXT = Migration(2, "more", ("CREATE TABLE more (id {serial}, data {bytes}) {clustered}",))
VERSIONS = "SELECT string_agg(number::text, ' ' ORDER BY number) FROM schema_versions"
FIRST = Migration(1, "slow", ("CREATE TABLE one (id {serial})", "SELECT pg_sleep(0.2)"))


class Dials:
    """Connections to the database under test."""

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self._made: list[Connection] = []

    async def migrate(self, known: Sequence[Migration]) -> None:
        connection = await dial(self._bridge, self._address)
        try:
            await migrate(connection, place="here", known=known)
        finally:
            connection.abort()

    async def open(self) -> AsyncIterator[Dials]:
        async with open_bridge() as self._bridge:
            yield self


@pytest.fixture
async def dials(server: PostgresServer) -> AsyncIterator[Dials]:
    async for made in Dials(server.url).open():
        yield made


async def test_a_database_that_is_up_to_date_is_left_alone(server: PostgresServer) -> None:
    for _ in range(2):
        async with open_postgres(server.url, random=lambda: 0.5):
            pass
    assert server.sql(VERSIONS) == " ".join(str(step.number) for step in MIGRATIONS)


async def test_of_many_starters_one_makes_each_step(dials: Dials, server: PostgresServer) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(dials.migrate, (FIRST, NEXT))
    assert server.sql(VERSIONS) == "1 2"


@pytest.mark.parametrize(("product", "locks"), [("PostgreSQL 15.18 on x86_64", True), ("CockroachDB CCL v24.1.0", False)])
def test_only_a_database_that_has_such_locks_is_asked_for_one(product: str, locks: bool) -> None:
    plan, asked, answers = next_step("here", (FIRST, NEXT)), list[str](), [[(product,)]]
    text, _ = next(plan)
    while "schema_versions" not in text:
        asked.append(text)
        text, _ = plan.send(answers.pop() if answers else [])  # type: ignore[arg-type]  # a row of other values
    assert any("advisory" in text for text in asked) is locks


async def test_a_step_that_fails_half_way_leaves_nothing(dials: Dials, server: PostgresServer) -> None:
    broken = Migration(2, "broken", ("CREATE TABLE half (id {serial})", "SELEKT 1"))
    with pytest.raises(Exception, match="syntax error"):
        await dials.migrate((FIRST, broken))
    assert server.sql(VERSIONS) == "1"
    assert server.sql("SELECT to_regclass('half') IS NULL") == "t"
    await dials.migrate((FIRST, NEXT))
    assert server.sql(VERSIONS) == "1 2"


async def test_a_step_may_take_longer_than_a_statement_otherwise_may(
    dials: Dials, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secureconnect.backends.sql.postgres_connection.SETTINGS", {"statement_timeout": "100"})
    await dials.migrate((FIRST,))
    assert server.sql(VERSIONS) == "1"


async def test_a_database_of_a_newer_release_is_not_touched(dials: Dials, server: PostgresServer) -> None:
    await dials.migrate((FIRST, NEXT))
    with pytest.raises(ConfigError, match="schema version 2, this program knows 1"):
        await dials.migrate((FIRST,))


async def test_a_starter_that_is_cancelled_leaves_nothing_half_made(dials: Dials, server: PostgresServer) -> None:
    with trio.move_on_after(0.1):
        await dials.migrate((Migration(1, "slow", ("CREATE TABLE one (id {serial})", "SELECT pg_sleep(60)")),))
    with trio.fail_after(10):  # the next one waits until the server has noticed
        await dials.migrate((FIRST,))
    assert server.sql(VERSIONS) == "1"
