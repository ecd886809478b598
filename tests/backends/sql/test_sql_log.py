"""What the contract of the log cannot see: the file after a restart, and how the database finds its rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from secureconnect.backends.sql import log, sqlite_file
from secureconnect.backends.sql.bulk import in_bulk
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.schema import MIGRATIONS
from secureconnect.backends.sql.sqlite import open_sqlite
from secureconnect.features.log.model import MESSAGE_CREATED, Head, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId

C = ConversationId("c")


def message(key: str) -> NewEntry:
    return NewEntry(key, MESSAGE_CREATED, b'{"text":"hi"}', UserId("ada"), 0, MessageId(key))


async def test_a_log_goes_on_where_it_ended_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite3"
    async with open_sqlite(path) as engine:
        before = await SqlLogStore(engine).append(C, [message("a"), message("b")])
    async with open_sqlite(path) as engine:
        store = SqlLogStore(engine)
        again, new = await store.append(C, [message("b"), message("c")])
        assert (again.entry, again.duplicate) == (before[1].entry, True)
        assert (new.entry.sequence, new.entry.message_number) == (3, 3)
        page = await store.read(C, 0, 10)
        assert [entry.key for entry in page.entries] == ["a", "b", "c"]
        assert page.head == Head(tail=3, messages=3)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    for migration in MIGRATIONS:
        for statement in migration.statements:
            opened.execute(statement.format_map(sqlite_file.WORDS))
    yield opened
    opened.close()


SINGLE = [
    log.SELECT_AFTER, log.SELECT_HEAD, log.SELECT_NEWEST, log.SELECT_MESSAGE, log.SELECT_NUMBER_BEFORE, log.SELECT_PLACE,
    log.REPLACE_BODY, log.MARK_DELETED, log.REDACT_EDITS,
]  # fmt: skip
BULK = [(log.SELECT_KNOWN, 2), (log.SELECT_DELETED, 2), (log.SELECT_HEADS, 1)]


@pytest.mark.parametrize("text", [*SINGLE, *(next(in_bulk(template, [("x",) * n] * 64))[0] for template, n in BULK)])
def test_every_statement_finds_its_rows_by_an_index(connection: sqlite3.Connection, text: str) -> None:
    """A scan is invisible in a small test and stands still in a large log."""
    values = ["1"] * max(map(int, re.findall(r"\$(\d+)", text)))
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sqlite_file.translated(text), values)]
    scans = [line for line in plan if line.startswith("SCAN") and "CONSTANT ROW" not in line and line != "SCAN k"]
    assert scans == []
    assert any("SEARCH" in line for line in plan)


def test_a_deletion_finds_the_edits_of_its_message_alone(connection: sqlite3.Connection) -> None:
    """Not by walking through its whole conversation."""
    text = "EXPLAIN QUERY PLAN " + sqlite_file.translated(log.REDACT_EDITS)
    assert "entries_edits" in connection.execute(text, [1, 2, 3]).fetchone()[3]
