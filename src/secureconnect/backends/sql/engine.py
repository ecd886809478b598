"""How a store speaks to a database: transactions as plans, run by an engine that owns connections, threads and deadlines.

A *plan* is a generator: it yields statements and is sent their rows, and what it returns is the transaction's result. So a
feature's SQL exists once: SQLite runs a plan to its end inside its writer thread, a networked database awaits between
statements, and a plan that lost a serialization conflict is simply made again. Plans are pure: no side effects outside the
database.

    def rename(conversation: str, title: str) -> Plan[bool]:
        rows = yield UPDATE_TITLE, (conversation, title)
        return bool(rows)

    renamed = await engine.write(lambda: rename("c1", "Lunch"))

SQL is portable: `$1 … $n` for parameters, ON CONFLICT, RETURNING, integer microseconds, text ids, BLOB/bytea bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 (the item of a shared plan, beside T its result)
Value: TypeAlias = str | bytes | int | float | None
Row: TypeAlias = tuple[Value, ...]
Statement: TypeAlias = tuple[str, Sequence[Value]]
"""SQL text with `$1 … $n`, and its parameters. Texts are module constants: they are translated and prepared once."""
Plan: TypeAlias = Generator[Statement, list[Row], T]


class Engine(Protocol):
    """A database.

    Raises: BackendDown, StorageFull (nothing happened), DeadlineExceeded, OutcomeUnknown (writes only). What a plan raises
    itself (Conflict, EntryRefused, …) rolls its transaction back and passes unchanged.
    """

    async def write(self, make: Callable[[], Plan[T]]) -> T:
        """Run one plan as a transaction: all of it or nothing, isolated from other writers, durable when this returns.

        Cancellation: the transaction may be committed nevertheless.
        """
        ...

    async def write_together(self, make: Callable[[Sequence[I]], Plan[Sequence[T]]], item: I) -> T:
        """Like `write` of the plan `make([item])`, whose results are one per item, in order.

        Items that wait at the same moment for the same `make` may be run as one plan, which saves most of the cost of each;
        when such a plan raises, every item gets a plan of its own, so nobody fails for another's fault. Items are idempotent
        (they carry keys): a networked database makes their plan again when it cannot know whether it was done. Cancellation:
        like `write`.
        """
        ...

    async def read(self, make: Callable[[], Plan[T]]) -> T:
        """Run one plan of SELECTs on one snapshot. Cancellation: nothing is lost."""
        ...
