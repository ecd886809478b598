"""Group commit: many plans in one transaction, each of which fails alone. Blocking code for the writer thread, without locks.

Every plan stands in a savepoint, so that one which raises undoes itself and nobody else. Jobs of one `make` that may be
merged become one plan; when that raises, each of them gets a plan of its own. A transaction of a single plan needs no
savepoint. When the transaction itself is lost (no room at COMMIT, locked by another process), every job is told so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outcome

from secureconnect.backends.sql import sqlite_file
from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.sqlite_line import Job


@dataclass(frozen=True, slots=True)
class Unit:
    """One plan and the jobs that it serves."""

    jobs: Sequence[Job]

    def plan(self) -> Plan[Any]:
        first = self.jobs[0]
        return first.make([job.item for job in self.jobs]) if first.shared else first.make()

    def settle(self, result: outcome.Outcome[Any]) -> None:
        if isinstance(result, outcome.Error) or not self.jobs[0].shared:
            for job in self.jobs:
                job.result = result
        else:
            for job, value in zip(self.jobs, result.unwrap(), strict=True):
                job.result = outcome.Value(value)

    def split(self) -> Sequence[Unit]:
        return [Unit((job,)) for job in self.jobs]


class GroupCommit:
    """Runs batches of jobs on the writing connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.transactions = 0
        """Committed ones."""
        self._connection = connection
        self._path = path
        self._committing = False

    def run(self, jobs: Sequence[Job]) -> None:
        """Give every job its result. Never raises: what goes wrong is somebody's result."""
        done = outcome.capture(self._transaction, units(jobs))
        if isinstance(done, outcome.Error):
            if self._connection.in_transaction:
                outcome.capture(self._connection.execute, "ROLLBACK")
            for job in jobs:
                job.result = self._failure(done.error)
        self._committing = False

    def _transaction(self, todo: Sequence[Unit]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        if len(todo) == 1 and self._alone(todo[0]):
            return
        if len(todo) > 1:
            for unit in todo:
                self._beside_others(unit)
        self._committing = True
        self._connection.execute("COMMIT")
        self.transactions += 1

    def _alone(self, unit: Unit) -> bool:
        """The only plan of the transaction. True: it failed, and everything is done."""
        result = self._outcome(unit)
        if isinstance(result, outcome.Value):
            unit.settle(result)
            return False
        self._connection.execute("ROLLBACK")
        if len(unit.jobs) > 1:
            self._transaction(unit.split())
        else:
            unit.settle(result)
        return True

    def _beside_others(self, unit: Unit) -> None:
        self._connection.execute("SAVEPOINT plan")
        result = self._outcome(unit)
        if isinstance(result, outcome.Error):
            self._connection.execute("ROLLBACK TO plan")
        self._connection.execute("RELEASE plan")
        if isinstance(result, outcome.Error) and len(unit.jobs) > 1:
            for single in unit.split():
                self._beside_others(single)
        else:
            unit.settle(result)

    def _outcome(self, unit: Unit) -> outcome.Outcome[Any]:
        result = outcome.capture(lambda: sqlite_file.run(self._connection, unit.plan()))
        if isinstance(result, outcome.Value):
            return result
        if not self._connection.in_transaction:
            raise result.error  # SQLite gave the whole transaction up
        return self._failure(result.error)

    def _failure(self, error: BaseException) -> outcome.Error:
        return outcome.Error(sqlite_file.meaning(error, self._path, committing=self._committing))


def units(jobs: Sequence[Job]) -> Sequence[Unit]:
    """Jobs of one `make` together, in the order of the first of each; all others alone."""
    shared: dict[Callable[..., Plan[Any]], list[Job]] = {}
    found: list[Unit] = []
    for job in jobs:
        if not job.shared:
            found.append(Unit((job,)))
        elif job.make in shared:
            shared[job.make].append(job)
        else:
            shared[job.make] = [job]
            found.append(Unit(shared[job.make]))
    return found
