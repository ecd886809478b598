"""The line of items that share transactions, over a database that does as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.postgres_together import ITEMS_MAX, RUNNERS, WAITING_MAX, Together
from secureconnect.errors import BackendDown, OutcomeUnknown, Overloaded

TOTAL_S = 5.0


class Database:
    """Every transaction waits until it is let go."""

    def __init__(self) -> None:
        self.together = Together(self.run, TOTAL_S)
        self.groups: list[Sequence[str]] = []
        self.error: Exception | None = None
        self.go = trio.Event()
        self.answers: dict[str, str] = {}

    async def run(self, make: Callable[[], Plan[Any]], *, lane: str) -> Any:  # noqa: ANN401 (as `Run`)
        group = [f"{lane} {value}" for value in make()]
        self.groups.append(group)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [str(value).upper() for value in group]

    async def ask(self, value: str) -> None:
        try:
            self.answers[value] = await self.together.ask("chat", letters, value)
        except (BackendDown, Overloaded, OutcomeUnknown) as error:
            self.answers[value] = type(error).__name__


def letters(values: Sequence[str]) -> Plan[Any]:
    """Not a plan at all: what the test's database needs to know of one."""
    return list(values)  # type: ignore[return-value]  # see above


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Database, trio.Nursery]]:
    database = Database()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.together.serve)
        yield database, nursery
        nursery.cancel_scope.cancel()


async def busy(database: Database, nursery: trio.Nursery) -> None:
    """All runners have a transaction of one item under way."""
    for n in range(RUNNERS):
        nursery.start_soon(database.ask, f"busy{n}")
        await trio.testing.wait_all_tasks_blocked()
    assert [len(group) for group in database.groups] == [1] * RUNNERS


async def test_who_leaves_before_its_turn_is_not_carried(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (database, nursery):
        await busy(database, nursery)
        with trio.move_on_after(1):
            await database.ask("left")
        nursery.start_soon(database.ask, "stays")
        await trio.testing.wait_all_tasks_blocked()
        database.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert database.groups[RUNNERS:] == [["chat stays"]]


async def test_a_group_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (database, nursery):
        await busy(database, nursery)
        for n in range(ITEMS_MAX + 1):
            nursery.start_soon(database.ask, f"{n}")
        await trio.testing.wait_all_tasks_blocked()
        database.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [len(group) for group in database.groups[RUNNERS:]] == [ITEMS_MAX, 1]


async def test_nobody_waits_longer_than_was_promised(autojump_clock: trio.testing.MockClock) -> None:
    """What was begun may be stored; what was not is refused with nothing done."""
    async with serving() as (database, nursery):
        await busy(database, nursery)
        begun_s = trio.current_time()
        await database.ask("waits")
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == pytest.approx(begun_s + TOTAL_S)
        assert database.answers == {"waits": "Overloaded", **{f"busy{n}": "OutcomeUnknown" for n in range(RUNNERS)}}
        assert database.together.waiting == 0


async def test_a_full_line_refuses_at_once() -> None:
    async with serving() as (database, nursery):
        await busy(database, nursery)
        for n in range(WAITING_MAX):
            nursery.start_soon(database.ask, f"{n}")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded) as refused:
            database.together.ask("chat", letters, "more").send(None)
        assert refused.value.word == "DB_POOL_EXHAUSTED"


async def test_a_database_that_fails_is_everybodys_answer_and_not_asked_for_each() -> None:
    async with serving() as (database, nursery):
        await busy(database, nursery)
        for name in "ab":
            nursery.start_soon(database.ask, name)
        await trio.testing.wait_all_tasks_blocked()
        database.error = BackendDown("sql")
        database.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (database.answers["a"], database.answers["b"]) == ("BackendDown", "BackendDown")
        assert len(database.groups) == RUNNERS + 1


async def test_at_the_end_nobody_is_left_waiting(autojump_clock: trio.testing.MockClock) -> None:
    database, begun_s = Database(), trio.current_time()
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        nursery.start_soon(database.together.serve)
        await busy(database, callers)
        callers.start_soon(database.ask, "waits")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert trio.current_time() < begun_s + TOTAL_S, "told at once, not at the end of their time"
    await database.ask("late")
    assert [database.answers[name] for name in ("busy0", "waits", "late")] == ["OutcomeUnknown", "BackendDown", "BackendDown"]
