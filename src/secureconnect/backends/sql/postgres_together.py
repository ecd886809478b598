"""Items of one kind that wait at the same moment share one transaction, as SQLite's group commit does it with all that waits.

Two things are won. A transaction costs its round trips whatever it carries. And appends to one conversation from one node never
lose a serialization to each other, which eight runs would not settle among twenty.

At most `RUNNERS` transactions are under way, so that a slow one does not hold up everybody; what comes meanwhile waits and goes
together. The transactions belong to a task of the database's, not to a caller: who leaves takes nobody with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import outcome
import trio

from secureconnect.backends.sql.engine import Plan
from secureconnect.errors import BackendDown, OutcomeUnknown, Overloaded, Unavailable

RUNNERS: Final = 4
"""Half of the connections that are reserved for chat."""
ITEMS_MAX: Final = 64
"""Of one transaction: beyond it a round trip's share is small, and a conflict would run too much again."""
WAITING_MAX: Final = 1_024
"""As in front of SQLite's writer."""


class Run(Protocol):
    """The guarded way to the database: a plan as one transaction in a lane."""

    async def __call__(self, make: Callable[[], Plan[Any]], *, lane: str) -> Any:  # noqa: ANN401 (each plan has its own type)
        """Raises: Unavailable, and what the plan raises."""
        ...


class _Item:
    __slots__ = ("begun", "lane", "make", "result", "task", "value")

    def __init__(self, lane: str, make: Callable[..., Plan[Any]], value: object) -> None:
        self.lane, self.make, self.value = lane, make, value
        self.begun = False
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()  # None: nobody waits (any more)
        self.result: outcome.Outcome[Any] | None = None

    def settle(self, result: outcome.Outcome[Any]) -> None:
        self.result = result
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, result)
            self.task = None


class Together:
    """The line of items and the transactions that carry them. `total_s`: what a caller waits at most."""

    def __init__(self, run: Run, total_s: float) -> None:
        self.full_total = 0
        self._run = run
        self._total_s = total_s
        self._waiting: dict[_Item, None] = {}
        self._is_over = False
        self._work = trio.Event()
        self._slots = trio.Semaphore(RUNNERS)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, lane: str, make: Callable[[Sequence[Any]], Plan[Any]], value: object) -> Any:  # noqa: ANN401 (as `Run`)
        """The result for `value`. Raises: Overloaded (nothing was done), OutcomeUnknown, Unavailable, what the plan raises.

        Cancellation: what was not begun is not done.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_over:
            raise _over()
        if len(self._waiting) >= WAITING_MAX:
            self.full_total += 1
            raise Overloaded("Too many writes wait for the database", details=_SQL, code="DB_POOL_EXHAUSTED")
        item = _Item(lane, make, value)
        self._waiting[item] = None
        self._work.set()
        ends_s = trio.current_time() + self._total_s
        with trio.CancelScope(deadline=ends_s):
            return await self._answer(item)
        if item.begun:
            raise OutcomeUnknown("The database did not answer in time; it may be stored", details=_SQL)
        self.full_total += 1
        raise Overloaded("The database was busy for too long", details=_SQL, code="DB_POOL_EXHAUSTED")

    async def _answer(self, item: _Item) -> Any:  # noqa: ANN401 (as `Run`)
        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            item.task = None
            self._waiting.pop(item, None)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(leave)

    async def serve(self) -> None:
        """Carry what waits, until cancelled; then nobody is left waiting."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._slots.acquire()
                    while not self._waiting:
                        self._work = trio.Event()
                        await self._work.wait()
                    nursery.start_soon(self._carry, self._next())
        finally:
            self._is_over = True
            for item in self._waiting:
                item.settle(outcome.Error(_over()))
            self._waiting.clear()

    def _next(self) -> Sequence[_Item]:
        """The one that waited longest, and those that may go with it."""
        first = next(iter(self._waiting))
        group = [item for item in self._waiting if (item.lane, item.make) == (first.lane, first.make)][:ITEMS_MAX]
        for item in group:
            del self._waiting[item]
            item.begun = True
        return group

    async def _carry(self, group: Sequence[_Item]) -> None:
        try:
            await self._settle(group)
        finally:
            self._slots.release()

    async def _settle(self, group: Sequence[_Item]) -> None:
        first = group[0]
        result = await outcome.acapture(self._run, lambda: first.make([item.value for item in group]), lane=first.lane)
        if isinstance(result, outcome.Value):
            for item, value in zip(group, result.value, strict=True):
                item.settle(outcome.Value(value))
        elif isinstance(result.error, trio.Cancelled):
            for item in group:
                item.settle(outcome.Error(OutcomeUnknown("The database is being closed; it may be stored", details=_SQL)))
            result.unwrap()
        elif len(group) == 1 or isinstance(result.error, Unavailable):  # the database's fault is everybody's
            for item in group:
                item.settle(outcome.Error(result.error))
        else:  # one of them has a fault of its own: nobody fails for another's
            for item in group:
                await self._settle([item])


def _over() -> BackendDown:
    return BackendDown("sql", "The database is being closed")


_SQL: Final = {"dependency": "sql"}
