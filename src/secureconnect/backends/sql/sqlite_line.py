"""The way from the event loop to a database thread and back: a bounded queue of jobs, results handed over in one step each batch.

The event loop never touches a connection, a thread never touches a task. A caller that is cancelled leaves at once; its job is
skipped if it has not begun, else its result is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import outcome
import trio

from secureconnect.backends.sql.engine import Plan
from secureconnect.errors import BackendDown, Overloaded


class Job:
    """One caller's wish: `make()`, or with an item `make([item])`, which may be merged with others of the same `make`."""

    __slots__ = ("item", "make", "result", "shared", "task")

    def __init__(self, make: Callable[..., Plan[Any]], item: object = None, *, shared: bool = False) -> None:
        self.make, self.item, self.shared = make, item, shared
        self.task: trio.lowlevel.Task | None = None  # only the event loop writes it; None: nobody waits (any more)
        self.result: outcome.Outcome[Any] | None = None  # only the thread writes it


class Line:
    """A bounded queue in front of one or more threads. Made inside the event loop."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.waiting = 0
        self.full_total = 0
        self._closed = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()

    async def ask(self, job: Job) -> Any:  # noqa: ANN401 (each job has its own type; the engine's methods restore it)
        """Wait for the job's result. Raises: Overloaded (queue full, nothing done), BackendDown (closed), what the job raises."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise BackendDown("sql", "The database is being closed")
        if self.waiting >= self.bound:
            self.full_total += 1
            raise Overloaded(f"{self.waiting} calls wait for the database", details={"dependency": "sql"})
        self.waiting += 1
        job.task = trio.lowlevel.current_task()
        self._jobs.put(job)

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(leave)

    def refuse(self) -> None:
        """Take nothing more."""
        self._closed = True

    def end(self, threads: int) -> None:
        """Each of the threads ends when it has done what waits."""
        self.refuse()
        for _ in range(threads):
            self._jobs.put(None)

    def take(self, most: int) -> tuple[list[Job], bool]:
        """From a thread: block for the next job, then whatever else waits; and whether the line has ended behind them."""
        jobs: list[Job] = []
        while len(jobs) < most and (not jobs or not self._jobs.empty()):
            job = self._jobs.get()
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def answer(self, jobs: Sequence[Job]) -> None:
        """From a thread: wake the callers of `jobs`, in one step."""
        self.tell(partial(self._deliver, jobs))

    def tell(self, deed: Callable[[], object]) -> None:
        """From a thread: have the event loop do something. When the loop has ended, nobody is left to tell."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(deed)

    def _deliver(self, jobs: Sequence[Job]) -> None:
        self.waiting -= len(jobs)
        for job in jobs:
            task, job.task = job.task, None
            if task is not None:
                assert job.result is not None
                trio.lowlevel.reschedule(task, job.result)
