"""The embedded database: SQLite behind one writer thread with group commit, and a few reading threads with snapshots.

Theory. SQLite has one writer at a time and a commit costs an fsync, so all writes go through one thread: it takes whatever
waits, runs it in one transaction and commits once. Writers that arrive meanwhile form the next transaction; the busier it is,
the more each fsync carries.

The interpreter lock decides the speed: sqlite3 gives it up around every call, and a thread that wants it back waits for a
busy event loop. So few calls count more than few rows: items of one kind that wait together share one plan with many rows per
statement (`write_together`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import outcome
import trio

from secureconnect.backends.sql import sqlite_file
from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.sqlite_checkpoint import CHECKPOINT_AFTER, Checkpointer
from secureconnect.backends.sql.sqlite_commit import GroupCommit
from secureconnect.backends.sql.sqlite_line import Job, Line
from secureconnect.errors import DeadlineExceeded, OutcomeUnknown

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 (an item of a shared plan, beside T its result)

CLOSE_S: Final = 10.0
"""How long closing waits for what was begun; then the threads are left to end with the process."""


@dataclass(frozen=True, slots=True)
class SqliteLimits:
    """Bounds of the queues in front of the threads; when one is full: Overloaded, nothing done."""

    writes_waiting_max: int = 1_024
    reads_waiting_max: int = 256
    jobs_per_transaction_max: int = 512
    """Beyond it a group wins nothing: the fsync's share is small by then, and everybody waits longer."""
    readers: int = 2
    checkpoint_after: int = CHECKPOINT_AFTER
    deadline_s: float = 5.0
    """One call, its wait in the queue included (failure-policy.md §1). A thread that hangs keeps its job, not its caller."""


@dataclass(frozen=True, slots=True)
class SqliteStatistics:
    """What waits now; the totals since the start."""

    writes_waiting: int
    reads_waiting: int
    full_total: int
    transactions: int


class SqliteEngine:
    """An `Engine` over one file; made by `open_sqlite`."""

    def __init__(self, path: Path, limits: SqliteLimits, writer: sqlite3.Connection) -> None:
        self.path = path
        self.checkpointer = Checkpointer(after=limits.checkpoint_after)
        self.limits = limits
        self._commit = GroupCommit(writer, path)
        self._writes = Line(limits.writes_waiting_max)
        self._reads = Line(limits.reads_waiting_max)

    async def write(self, make: Callable[[], Plan[T]]) -> T:
        result: T = await self._asked(self._writes, Job(make), is_write=True)
        return result

    async def write_together(self, make: Callable[[Sequence[I]], Plan[Sequence[T]]], item: I) -> T:
        result: T = await self._asked(self._writes, Job(make, item, shared=True), is_write=True)
        return result

    async def read(self, make: Callable[[], Plan[T]]) -> T:
        result: T = await self._asked(self._reads, Job(make), is_write=False)
        return result

    async def _asked(self, line: Line, job: Job, *, is_write: bool) -> Any:  # noqa: ANN401 (as `Line.ask`)
        deadline_s = self.limits.deadline_s
        ends_s = trio.current_time() + deadline_s
        if trio.current_effective_deadline() <= ends_s:
            return await line.ask(job)  # the caller's own scope ends it sooner
        with trio.CancelScope(deadline=ends_s):
            return await line.ask(job)
        if is_write:
            raise OutcomeUnknown(f"The database did not answer within {deadline_s:g} s", details={"dependency": "sql"})
        raise DeadlineExceeded(f"The database did not answer within {deadline_s:g} s", details={"dependency": "sql"})

    def statistics(self) -> SqliteStatistics:
        return SqliteStatistics(
            writes_waiting=self._writes.waiting,
            reads_waiting=self._reads.waiting,
            full_total=self._writes.full_total + self._reads.full_total,
            transactions=self._commit.transactions,
        )

    async def close(self, writer: trio.Event, readers: Sequence[trio.Event], checkpointer: trio.Event) -> None:
        """Take nothing more and wait until what waits is done. The writer ends last, alone: so it empties its log."""
        self._writes.refuse()
        self._reads.end(len(readers))
        self.checkpointer.end()
        for ended in (*readers, checkpointer):
            await ended.wait()
        self._writes.end(1)
        await writer.wait()

    def serve_writes(self, connection: sqlite3.Connection, ended: Callable[[], object]) -> None:
        """The writer thread."""
        closing = False
        while not closing:
            jobs, closing = self._writes.take(self.limits.jobs_per_transaction_max)
            wanted = [job for job in jobs if job.task is not None]
            if wanted:
                self._commit.run(wanted)
            self._writes.answer(jobs)
            self.checkpointer.wrote(connection, len(wanted))
        connection.close()
        self._writes.tell(ended)

    def serve_checkpoints(self, connection: sqlite3.Connection, ended: Callable[[], object]) -> None:
        """The thread that copies the write-ahead log into the file."""
        self.checkpointer.serve(connection, partial(self._writes.tell, ended))

    def serve_reads(self, connection: sqlite3.Connection, ended: Callable[[], object]) -> None:
        """A reading thread."""
        closing = False
        while not closing:
            jobs, closing = self._reads.take(1)
            for job in jobs:
                if job.task is not None:
                    job.result = self._read(connection, job)
            self._reads.answer(jobs)
        connection.close()
        self._reads.tell(ended)

    def _read(self, connection: sqlite3.Connection, job: Job) -> outcome.Outcome[Any]:
        result = outcome.capture(_on_snapshot, connection, job)
        if isinstance(result, outcome.Value):
            return result
        return outcome.Error(sqlite_file.meaning(result.error, self.path))


def _on_snapshot(connection: sqlite3.Connection, job: Job) -> object:
    connection.execute("BEGIN")
    try:
        return sqlite_file.run(connection, job.make())
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@asynccontextmanager
async def open_sqlite(
    path: Path, *, limits: SqliteLimits = SqliteLimits(), synchronous: str = "FULL"
) -> AsyncIterator[SqliteEngine]:
    """Open or make the database `path`, bring its schema up to date and serve it for the length of the block.

    Leaving the block takes nothing more, finishes what waits and closes the file. The threads are daemons: a disk that hangs
    cannot keep the process. `synchronous` is for the tests that prove why it is FULL.

    Raises: ConfigError (unwritable, newer than this program), BackendDown (damaged, locked by another process), StorageFull; the
    message names the file and the cure.
    """
    opening = partial(sqlite_file.open_all, path, readers=limits.readers, synchronous=synchronous)
    opened = await trio.to_thread.run_sync(opening)
    engine = SqliteEngine(path, limits, opened.writer)
    writer_ended = _thread("writer", engine.serve_writes, opened.writer)
    checkpointer_ended = _thread("checkpointer", engine.serve_checkpoints, opened.checkpointer)
    readers_ended = [_thread("reader", engine.serve_reads, reader) for reader in opened.readers]
    try:
        yield engine
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await engine.close(writer_ended, readers_ended, checkpointer_ended)


def _thread(name: str, serve: Callable[..., None], connection: sqlite3.Connection) -> trio.Event:
    ended = trio.Event()
    threading.Thread(target=serve, args=(connection, ended.set), name=f"sqlite {name}", daemon=True).start()
    return ended
