"""The hub's table of digests: what every implementation of DigestTable must do."""

from __future__ import annotations

import pytest

from secureconnect.backends.memory.digests import MemoryDigestTable
from secureconnect.backends.sql.digests import KEPT_US, SqlDigestTable
from secureconnect.backends.sql.engine import Engine
from secureconnect.hub import DigestTable


class Clock:
    def __init__(self) -> None:
        self.us = 1_000_000_000_000

    def now_us(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(engine: Engine | None, clock: Clock) -> DigestTable:
    return MemoryDigestTable() if engine is None else SqlDigestTable(engine, clock)


async def test_rows_above_what_was_seen_come_in_order(table: DigestTable) -> None:
    for number in (1, 2, 10):
        await table.write("a", 1, number, b"a%d" % number)
    await table.write("b", 1, 1, b"b1")
    assert list(await table.since({})) == [b"a1", b"a2", b"a10", b"b1"]
    assert list(await table.since({"a": (1, 1)})) == [b"a2", b"a10", b"b1"]
    assert list(await table.since({"a": (1, 10), "b": (1, 1)})) == []


async def test_a_new_epoch_comes_behind_the_old_one_whatever_its_numbers(table: DigestTable) -> None:
    await table.write("a", 1, 900, b"old")
    await table.write("a", 2, 1, b"new")
    assert list(await table.since({"a": (1, 899)})) == [b"old", b"new"]
    assert list(await table.since({"a": (1, 900)})) == [b"new"]
    assert list(await table.since({"a": (2, 1)})) == []


async def test_a_row_written_twice_is_one(table: DigestTable) -> None:
    await table.write("a", 1, 1, b"x")
    await table.write("a", 1, 1, b"x")
    assert list(await table.since({})) == [b"x"]


async def test_an_hour_of_digests_keeps_at_most_the_last_minutes(table: DigestTable, clock: Clock) -> None:
    for number in range(1, 301):
        await table.write("a", 1, number, b"%d" % number)
        clock.us += 1_000_000
    rows = await table.since({})
    assert rows[-1] == b"300"
    assert KEPT_US // 1_000_000 <= len(rows) <= 2 * KEPT_US // 1_000_000
