"""The embedded database: group commit, what a failure does to its neighbours, and everything that can be wrong with a file."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import trio.testing

from secureconnect.backends.sql import sqlite_file
from secureconnect.backends.sql.engine import Plan, Row
from secureconnect.backends.sql.migrations import CREATE_VERSIONS, missing
from secureconnect.backends.sql.schema import MIGRATIONS
from secureconnect.backends.sql.sqlite import SqliteEngine, SqliteLimits, open_sqlite
from secureconnect.errors import BackendDown, ConfigError, Conflict, DeadlineExceeded, OutcomeUnknown, Overloaded, StorageFull

INSERT = "INSERT INTO digests (node, epoch, number, data, at_us) VALUES ($1, 0, $2, $3, 0)"
NAMES = "SELECT node FROM digests ORDER BY node"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.sqlite3"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SqliteEngine]:
    async with open_sqlite(path) as opened:
        yield opened


def insert(name: str, *, data: bytes = b"", number: int = 0) -> Plan[str]:
    yield INSERT, (name, number, data)
    return name


def insert_all(names: Sequence[str]) -> Plan[Sequence[str]]:
    """A shared plan, which cannot take the name `bad` and calls others by its own."""
    for name in names:
        yield INSERT, (name, 0, b"")
        if name == "bad":
            raise Conflict("bad")
    return [name.upper() for name in names]


def failing(error: Exception) -> Plan[None]:
    yield INSERT, ("undone", 0, b"")
    raise error


def names() -> Plan[list[object]]:
    rows = yield NAMES, ()
    return [name for (name,) in rows]


@asynccontextmanager
async def held(engine: SqliteEngine, nursery: trio.Nursery) -> AsyncIterator[None]:
    """The writer thread stands still inside a transaction; what is written meanwhile is the next one."""
    begun, go = threading.Event(), threading.Event()

    def hold() -> Plan[None]:
        yield "SELECT 1", ()
        begun.set()
        go.wait(5)

    nursery.start_soon(engine.write, hold)
    await trio.to_thread.run_sync(begun.wait)
    try:
        yield
        await trio.testing.wait_all_tasks_blocked()
    finally:
        go.set()


async def test_what_waits_is_committed_in_one_transaction(engine: SqliteEngine) -> None:
    async with trio.open_nursery() as nursery, held(engine, nursery):
        for n in range(100):
            nursery.start_soon(engine.write, partial(insert, f"{n:02}"))
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().writes_waiting == 101
    assert engine.statistics().transactions == 2
    assert engine.statistics().writes_waiting == 0
    assert len(await engine.read(names)) == 100


@pytest.mark.parametrize("kind", ["write", "read"])
async def test_a_disk_that_hangs_costs_a_caller_its_deadline_and_no_more(path: Path, kind: str) -> None:
    """The thread keeps the job, the caller leaves: a write may still happen, a read is just late."""
    begun, go = threading.Event(), threading.Event()

    def hang() -> Plan[None]:
        yield "SELECT 1", ()
        begun.set()
        go.wait(10)

    async with open_sqlite(path, limits=SqliteLimits(deadline_s=0.2, readers=1)) as engine:
        try:
            with trio.fail_after(5):
                with pytest.raises(OutcomeUnknown if kind == "write" else DeadlineExceeded, match=r"within 0\.2 s"):
                    await (engine.write(hang) if kind == "write" else engine.read(hang))
                assert begun.is_set()
                with pytest.raises(OutcomeUnknown if kind == "write" else DeadlineExceeded):
                    await (engine.write(partial(insert, "a")) if kind == "write" else engine.read(names))  # behind it in the line
        finally:
            go.set()


async def test_a_transaction_is_bounded(path: Path) -> None:
    async with open_sqlite(path, limits=SqliteLimits(jobs_per_transaction_max=10)) as engine:
        async with trio.open_nursery() as nursery, held(engine, nursery):
            for n in range(30):
                nursery.start_soon(engine.write, partial(insert, f"{n:02}"))
            await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().transactions == 4


@pytest.mark.parametrize("error", [Conflict("no"), KeyError("a bug")])
async def test_a_plan_that_fails_undoes_itself_and_nobody_else(engine: SqliteEngine, error: Exception) -> None:
    caught: list[BaseException] = []

    async def fail() -> None:
        try:
            await engine.write(partial(failing, error))
        except type(error) as got:
            caught.append(got)

    async with trio.open_nursery() as nursery, held(engine, nursery):
        nursery.start_soon(engine.write, partial(insert, "a"))
        nursery.start_soon(fail)
        nursery.start_soon(engine.write, partial(insert, "b"))
        await trio.testing.wait_all_tasks_blocked()
    assert caught == [error]
    assert engine.statistics().transactions == 2
    assert await engine.read(names) == ["a", "b"]


async def test_a_plan_that_fails_alone_leaves_nothing(engine: SqliteEngine) -> None:
    with pytest.raises(Conflict, match="no"):
        await engine.write(partial(failing, Conflict("no")))
    assert await engine.read(names) == []


async def test_a_statement_that_is_wrong_stays_a_bug(engine: SqliteEngine) -> None:
    await engine.write(partial(insert, "a"))
    with pytest.raises(sqlite3.IntegrityError):
        await engine.write(partial(insert, "a"))


async def test_items_of_one_kind_that_wait_together_share_a_plan(engine: SqliteEngine) -> None:
    calls: list[int] = []
    answers: dict[str, str] = {}

    def counted(items: Sequence[str]) -> Plan[Sequence[str]]:
        calls.append(len(items))
        result = yield from insert_all(items)
        return result

    async def write(name: str) -> None:
        answers[name] = await engine.write_together(counted, name)

    async with trio.open_nursery() as nursery, held(engine, nursery):
        for name in "abc":
            nursery.start_soon(write, name)
        nursery.start_soon(engine.write, partial(insert, "alone"))
        await trio.testing.wait_all_tasks_blocked()
    assert calls == [3]
    assert answers == {"a": "A", "b": "B", "c": "C"}
    assert await engine.read(names) == ["a", "alone", "b", "c"]


@pytest.mark.parametrize("with_others", [False, True])
async def test_when_a_shared_plan_fails_each_item_stands_alone(engine: SqliteEngine, with_others: bool) -> None:
    answers: dict[str, object] = {}

    async def write(name: str) -> None:
        try:
            answers[name] = await engine.write_together(insert_all, name)
        except Conflict as error:
            answers[name] = error.code

    async with trio.open_nursery() as nursery, held(engine, nursery):
        for name in ("a", "bad", "b"):
            nursery.start_soon(write, name)
        if with_others:
            nursery.start_soon(engine.write, partial(insert, "other"))
        await trio.testing.wait_all_tasks_blocked()
    assert answers == {"a": "A", "bad": "CONFLICT", "b": "B"}
    assert await engine.read(names) == ["a", "b"] + ["other"] * with_others


async def test_a_writer_that_leaves_before_its_turn_writes_nothing(engine: SqliteEngine) -> None:
    async with trio.open_nursery() as nursery, held(engine, nursery):
        async with trio.open_nursery() as impatient:
            impatient.start_soon(engine.write, partial(insert, "left"))
            await trio.testing.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        nursery.start_soon(engine.write, partial(insert, "stayed"))
        await trio.testing.wait_all_tasks_blocked()
    assert await engine.read(names) == ["stayed"]
    assert engine.statistics().writes_waiting == 0


async def test_a_writer_that_leaves_in_its_turn_is_stored(engine: SqliteEngine) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> Plan[None]:
        yield INSERT, ("begun", 0, b"")
        begun.set()
        go.wait(5)

    async with trio.open_nursery() as impatient:
        impatient.start_soon(engine.write, slow)
        await trio.to_thread.run_sync(begun.wait)
        impatient.cancel_scope.cancel()
    go.set()
    await engine.write(partial(insert, "next"))
    assert await engine.read(names) == ["begun", "next"]


async def test_a_plan_reads_one_snapshot(engine: SqliteEngine) -> None:
    began, go = threading.Event(), threading.Event()

    def twice() -> Plan[tuple[int, int]]:
        before = yield NAMES, ()
        began.set()
        go.wait(5)
        after = yield NAMES, ()
        return len(before), len(after)

    found: list[tuple[int, int]] = []

    async def read() -> None:
        found.append(await engine.read(twice))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.to_thread.run_sync(began.wait)
        await engine.write(partial(insert, "meanwhile"))
        assert await engine.read(names) == ["meanwhile"], "another reader is not held up"
        go.set()
    assert found == [(0, 0)]


async def test_who_reads_cannot_write(engine: SqliteEngine) -> None:
    with pytest.raises(StorageFull):
        await engine.read(partial(insert, "a"))
    assert await engine.read(names) == []


async def test_a_full_queue_refuses_with_nothing_done(path: Path) -> None:
    async with open_sqlite(path, limits=SqliteLimits(writes_waiting_max=3)) as engine, trio.open_nursery() as nursery:
        async with held(engine, nursery):
            for name in "ab":
                nursery.start_soon(engine.write, partial(insert, name))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await engine.write(partial(insert, "c"))
        assert engine.statistics().full_total == 1


async def test_closing_finishes_what_waits_and_takes_nothing_more(path: Path) -> None:
    async with trio.open_nursery() as nursery, open_sqlite(path) as engine, held(engine, nursery):
        for name in "abc":
            nursery.start_soon(engine.write, partial(insert, name))
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(BackendDown):
        await engine.write(partial(insert, "d"))
    assert not path.with_name(path.name + "-wal").exists(), "the log was copied into the file"
    async with open_sqlite(path) as again:
        assert await again.read(names) == ["a", "b", "c"]


async def test_closing_finishes_also_when_it_is_cancelled(path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_sqlite(path) as engine:
            await engine.write(partial(insert, "a"))
            scope.cancel()
    assert not path.with_name(path.name + "-wal").exists()
    del engine


async def test_a_full_disk_is_named_and_nothing_is_stored(engine: SqliteEngine) -> None:
    def at_most(pages: int) -> Plan[None]:
        yield f"PRAGMA max_page_count={pages}", ()

    await engine.write(partial(at_most, 60))
    with pytest.raises(StorageFull, match=str(engine.path)) as caught:
        await engine.write(partial(insert, "large", data=b"x" * 1_000_000))
    assert "full" in caught.value.message
    assert str(engine.path.parent) not in caught.value.message, "clients read this"
    await engine.write(partial(insert, "small"))
    assert await engine.read(names) == ["small"]
    await engine.write(partial(at_most, 10_000))
    await engine.write(partial(insert, "large", data=b"x" * 1_000_000))
    assert await engine.read(names) == ["large", "small"]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Writes beyond `size` fail (EFBIG), which is what a broken disk looks like: an error from write(2)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_fails_at_the_commit_leaves_it_unknown_for_everybody_in_it(engine: SqliteEngine) -> None:
    """What reached the file may be found by a restart: nobody may be told that nothing was stored."""
    await engine.write(partial(insert, "before"))
    told: list[str] = []

    async def write(name: str) -> None:
        try:
            await engine.write(partial(insert, name, data=b"x" * 100_000))
        except OutcomeUnknown as error:
            told.append(str(error))

    wal = engine.path.with_name(engine.path.name + "-wal")
    with ExitStack() as broken:
        async with trio.open_nursery() as nursery, held(engine, nursery):
            for name in "ab":
                nursery.start_soon(write, name)
            await trio.testing.wait_all_tasks_blocked()
            broken.enter_context(no_file_above(len(content(wal)) + 50_000))
    assert len(told) == 2
    assert str(engine.path) in told[0]
    await engine.write(partial(insert, "after"))
    assert await engine.read(names) == ["after", "before"]


async def test_rows_stay_when_the_file_is_opened_again(path: Path) -> None:
    async with open_sqlite(path) as engine:
        await engine.write(partial(insert, "a", data=bytes(range(256))))
    async with open_sqlite(path) as engine:

        def data() -> Plan[object]:
            rows = yield "SELECT data FROM digests WHERE node = $1", ("a",)
            return rows[0][0]

        assert await engine.read(data) == bytes(range(256))


def content(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def no_database(path: Path) -> None:
    path.write_bytes(b"this is not a database, but long enough to look at" * 100)


def damaged_page(path: Path) -> None:
    overwrite(path, 3 * 4096, b"\xff" * 4096)


def cut_off(path: Path) -> None:
    os.truncate(path, 5 * 4096)


@pytest.mark.parametrize("damage", [no_database, damaged_page, cut_off])
async def test_a_damaged_file_stops_the_start_and_says_what_to_do(path: Path, damage: Callable[[Path], None]) -> None:
    async with open_sqlite(path) as engine:
        await engine.write(partial(insert, "a"))
    damage(path)
    before = content(path)
    with pytest.raises(BackendDown, match="restore a backup") as caught:
        async with open_sqlite(path):
            pass
    assert str(path) in str(caught.value)
    assert content(path) == before, "nothing is made worse"


async def test_damage_that_shows_later_is_named_too(path: Path) -> None:
    async with open_sqlite(path) as engine:
        for n in range(200):
            await engine.write(partial(insert, f"{n:03}", data=b"x" * 3_000))
    async with open_sqlite(path, limits=SqliteLimits(readers=1)) as engine:
        for page in range(40, len(content(path)) // 4096):
            overwrite(path, page * 4096, b"\xff" * 4096)

        def everything() -> Plan[int]:
            rows = yield "SELECT * FROM digests", ()
            return len(rows)

        with pytest.raises(BackendDown, match="damaged") as caught:
            await engine.read(everything)
        assert str(path) in str(caught.value)


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    def newer() -> Plan[None]:
        yield "INSERT INTO schema_versions (number, title) VALUES (999, 'from the future')", ()

    async with open_sqlite(path) as engine:
        await engine.write(newer)
    with pytest.raises(ConfigError, match="999") as caught:
        async with open_sqlite(path):
            pass
    assert str(path) in str(caught.value)


def test_each_migration_is_the_next_number() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert list(missing(0, place="x")) == list(MIGRATIONS)
    assert list(missing(len(MIGRATIONS), place="x")) == []


async def test_a_file_of_the_first_version_keeps_its_members_and_does_not_know_where_they_began(path: Path) -> None:
    old = sqlite3.connect(path)
    for text in (CREATE_VERSIONS, *MIGRATIONS[0].statements):
        old.execute(text.format_map(sqlite_file.WORDS))
    old.execute("INSERT INTO schema_versions VALUES (1, 'the first')")
    old.execute("INSERT INTO participants VALUES ('here', 'ada', 'admin', 7, 1)")
    old.commit()
    old.close()

    def members() -> Plan[list[Row]]:
        rows = yield "SELECT user_id, visible_from, joined_sequence FROM participants", ()
        return rows

    async with open_sqlite(path) as engine:
        assert await engine.read(members) == [("ada", 1, None)]


async def test_a_file_that_another_process_holds_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_MS", 10)
    async with open_sqlite(path) as engine:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendDown, match="locked by another process"):
            await engine.write(partial(insert, "a"))
        with pytest.raises(BackendDown, match="locked by another process"):
            async with open_sqlite(path):
                pass
        other.execute("ROLLBACK")
        other.close()
        await engine.write(partial(insert, "a"))
        assert await engine.read(names) == ["a"]


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DATA_DIR") as caught:
        async with open_sqlite(tmp_path / "nowhere" / "test.sqlite3"):
            pass
    assert "nowhere" in str(caught.value)


OPEN_AS_NOBODY = """
import os, pathlib, sys
from secureconnect.backends.sql import sqlite_file
from secureconnect.errors import SecureConnectError
if os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
try:
    sqlite_file.open_all(pathlib.Path(sys.argv[1]), readers=1)
except SecureConnectError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("is_there", [False, True])
async def test_what_this_user_may_not_write_is_named(is_there: bool) -> None:
    """Asked in another process, for to root nothing is read-only."""
    with TemporaryDirectory() as name:
        path = Path(name) / "test.sqlite3"
        if is_there:
            async with open_sqlite(path) as engine:
                await engine.write(partial(insert, "a"))
        path.parent.chmod(0o555)
        command = partial(subprocess.run, [sys.executable, "-c", OPEN_AS_NOBODY, str(path)], capture_output=True, text=True)
        done = await trio.to_thread.run_sync(command)
        path.parent.chmod(0o755)
    assert done.stdout.startswith("ConfigError"), done
    assert str(path) in done.stdout


async def test_what_is_overwritten_leaves_the_file(path: Path) -> None:
    """A redaction is one only when the bytes are gone."""

    def redact() -> Plan[None]:
        yield "UPDATE digests SET data = $1 WHERE node = $2", (b"redacted", "a")

    async with open_sqlite(path) as engine:
        await engine.write(partial(insert, "a", data=b"a secret " * 200))
        await engine.write(redact)
    assert b"redacted" in content(path)
    assert b"secret" not in content(path)
