"""Many entries at once: in order, each with its own answer, in few transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from secureconnect.backends.appends import run_appends
from secureconnect.backends.sql import announcements
from secureconnect.backends.sql.announcements import SqlAnnouncementStore
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.sqlite import SqliteEngine, open_sqlite
from secureconnect.backends.together import append_together
from secureconnect.errors import BackendDown
from secureconnect.features.log.announcer import TOGETHER_MAX, Announcement, Announcer
from secureconnect.features.log.model import MEMBER_JOINED, Entry, NewEntry
from secureconnect.features.log.service import Log, Receipt
from secureconnect.features.log.source import LogSource
from secureconnect.hub import Hub
from secureconnect.ids import ConversationId, UserId

HERE = ConversationId("here")


def entry(key: str) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b"{}", UserId("ada"), 0)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[SqliteEngine, Log]]:
    async with open_sqlite(path / "log.sqlite3", synchronous="OFF") as engine, trio.open_nursery() as nursery:
        store = SqlLogStore(engine)
        hub = Hub(node="n1", random=lambda: 0.5, sources={"conversation:": LogSource(store)})
        log = Log(store, hub, now_s=trio.current_time)
        await nursery.start(partial(run_appends, log.pipeline))
        yield engine, log
        nursery.cancel_scope.cancel()


async def nobody(announcements: Sequence[Announcement]) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_thousand_joins_are_told_in_order_in_a_bounded_number_of_commits(tmp_path: Path) -> None:
    people = [UserId(f"{n:03}") for n in range(998)]
    async with running(tmp_path) as (engine, log):
        await engine.write(partial(announcements.insert, HERE, [(entry(person), person) for person in people]))
        before = engine.statistics().transactions
        await Announcer(SqlAnnouncementStore(engine), partial(append_together, log.append), told=nobody).flush(HERE)
        groups = -(-len(people) // TOGETHER_MAX)
        assert engine.statistics().transactions - before <= 4 * groups, "append, perhaps in two parts, show, forget"
        assert [e.key for e in (await log.read(HERE, 0, 1_000)).entries] == people


async def test_each_entry_gets_its_own_receipt_in_the_order_given(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, log):
        await log.append(HERE, entry("b"))
        receipts = await append_together(log.append, HERE, [entry(key) for key in "abc"])
    assert [(r.entry.key, r.entry.sequence, r.duplicate) for r in receipts] == [("a", 2, False), ("b", 1, True), ("c", 3, False)]
    assert await append_together(log.append, HERE, []) == []


async def test_one_that_fails_is_told_when_all_have_ended() -> None:
    stored: list[str] = []

    async def append(conversation: ConversationId, new: NewEntry) -> Receipt:
        if new.key == "a":
            raise BackendDown("log")
        await trio.testing.wait_all_tasks_blocked()
        stored.append(new.key)
        return Receipt("stored", Entry(conversation, 1, 0, new.kind, new.data, new.key, new.actor, new.at_us), duplicate=False)

    with pytest.raises(BackendDown):
        await append_together(append, HERE, [entry("a"), entry("b")])
    assert stored == ["b"]
