"""The write-ahead log is copied into the file beside the writer, begins anew, and loses nothing when copying fails."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.sqlite import SqliteEngine, SqliteLimits, open_sqlite
from secureconnect.backends.sql.sqlite_checkpoint import Checkpointer

INSERT = "INSERT INTO digests (node, epoch, number, data, at_us) VALUES ($1, 0, $2, $3, 0)"
PAGE_BYTES = 4_096


def insert(number: int) -> Plan[None]:
    yield INSERT, ("a", number, b"x" * 2_000)


def count() -> Plan[int]:
    rows = yield "SELECT COUNT(*) FROM digests", ()
    return int(str(rows[0][0]))


async def until(holds: Callable[[], bool], engine: SqliteEngine, numbers: list[int]) -> None:
    """Write until it holds: the threads take the time that they take."""
    with trio.fail_after(5):
        while not holds():
            numbers.append(len(numbers))
            await engine.write(partial(insert, numbers[-1]))


async def test_the_log_begins_anew_while_somebody_writes_on(tmp_path: Path) -> None:
    path, log, numbers = tmp_path / "a.sqlite3", tmp_path / "a.sqlite3-wal", list[int]()
    async with open_sqlite(path, limits=SqliteLimits(checkpoint_after=20)) as engine:
        await until(lambda: engine.checkpointer.total >= 10, engine, numbers)
        assert log.stat().st_size < 3 * len(numbers) * PAGE_BYTES / 2
        assert await engine.read(count) == len(numbers)
    async with open_sqlite(path) as engine:
        assert await engine.read(count) == len(numbers)


async def test_what_was_committed_is_in_the_file_itself_without_the_log(tmp_path: Path) -> None:
    path, numbers = tmp_path / "a.sqlite3", list[int]()
    async with open_sqlite(path, limits=SqliteLimits(checkpoint_after=20)) as engine:
        await until(lambda: engine.checkpointer.total >= 1, engine, numbers)
        alone = tmp_path / "b.sqlite3"
        alone.write_bytes(path.read_bytes())
        with sqlite3.connect(alone) as copy:
            (found,) = copy.execute("SELECT COUNT(*) FROM digests").fetchone()
        copy.close()
        assert found >= 5


async def test_a_reader_that_stays_only_delays_the_new_beginning(tmp_path: Path) -> None:
    path, numbers = tmp_path / "a.sqlite3", list[int]()
    async with open_sqlite(path, limits=SqliteLimits(checkpoint_after=20)) as engine:
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM digests").fetchone()
        await until(lambda: engine.checkpointer.total >= 3, engine, numbers)
        reader.close()
        assert await engine.read(count) == len(numbers)


def test_asks_once_and_goes_on_when_copying_fails() -> None:
    closed = sqlite3.connect(":memory:")
    closed.close()
    checkpointer = Checkpointer(after=4)
    for _ in range(10):
        checkpointer.wrote(closed, 1)
    checkpointer.end()
    ended: list[bool] = []
    checkpointer.serve(closed, lambda: ended.append(True))
    assert (checkpointer.total, ended) == (1, [True])
    checkpointer.wrote(closed, 1)  # the writer's own rest fails too, and is asked for anew
    for _ in range(2):
        checkpointer.wrote(closed, 1)
    checkpointer.end()
    checkpointer.serve(closed, lambda: ended.append(True))
    assert (checkpointer.total, len(ended)) == (2, 2)


@pytest.mark.parametrize("ends", range(3))
async def test_closing_leaves_no_log_behind(tmp_path: Path, ends: int) -> None:
    path = tmp_path / f"{ends}.sqlite3"
    async with open_sqlite(path, limits=SqliteLimits(checkpoint_after=5)) as engine:
        for number in range(20 + ends):
            await engine.write(partial(insert, number))
    assert sorted(os.listdir(tmp_path)) == [path.name]
