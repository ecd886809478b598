"""The engine against a real PostgreSQL that is frozen, killed, restarted, full or cut off, and what is left afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing
from tests.backends.sql.postgres_kit import Cut, insert, insert_all, names, need_postgres, sleep, until, wire

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.postgres import Postgres, PostgresLimits, open_postgres
from secureconnect.backends.sql.postgres_pool import PoolLimits
from secureconnect.errors import OutcomeUnknown, SecureConnectError, Unavailable
from secureconnect.features.log.model import MESSAGE_CREATED, Appended, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId
from secureconnect.resilience import SQL
from secureconnect.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.service

HERE = ConversationId("here")
CALLS = 200
PROMISED_S = SQL.total_s
MARGIN_S = 2.5
"""For a loaded machine: what is measured here is that calls end, and hours are not 5 s."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    need_postgres()
    made = PostgresServer(settings={"max_connections": "20"})
    try:
        made.create()
        yield made
    finally:
        made.remove()


@pytest.fixture
def server(own_server: PostgresServer) -> PostgresServer:
    """It runs, and its database is new."""
    own_server.sql("DROP DATABASE IF EXISTS test WITH (FORCE)", database="postgres")
    own_server.sql("CREATE DATABASE test", database="postgres")
    return own_server


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Postgres]:
    """With fewer connections than the server allows, and a prober."""
    async with (
        open_postgres(url, random=lambda: 0.5, limits=PostgresLimits(replace(SQL, permits=15))) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_probe, database)
        yield database
        nursery.cancel_scope.cancel()


async def _probe(database: Postgres) -> None:
    """As health does it."""
    while True:
        with suppress(Unavailable):
            await database.prober().write(_noted)
        await trio.sleep(database.stack.breaker.pause_s(0.5))


def _noted() -> Plan[None]:
    yield "INSERT INTO probes (node, at_us) VALUES ('n', 1) ON CONFLICT (node) DO UPDATE SET at_us = excluded.at_us", ()


def message(key: str) -> NewEntry:
    return NewEntry(key, MESSAGE_CREATED, b'{"text":"hi"}', UserId("ada"), 1, MessageId(key))


async def whole(database: Postgres) -> None:
    """The breaker is closed, calls succeed, nothing is left of the outage, connections are ready again."""

    def is_quiet() -> bool:
        now = database.statistics()
        return now.stack.breaker == "closed" and not now.orphans and now.pool.idle > 0

    with trio.fail_after(15):
        await until(is_quiet)
        await database.engine("chat").write(partial(insert, "after"))
        assert "after" in await database.engine("chat").read(names)
    assert not any(database.statistics().stack.in_use.values())


class Calls:
    """Many calls at once, of every kind, some cancelled; what became of each. `acknowledged`: keys of the log."""

    def __init__(self, database: Postgres) -> None:
        self.database = database
        self.acknowledged: set[str] = set()
        self.ended = 0
        self.errors: list[SecureConnectError] = []

    async def one(self, n: int) -> None:
        chat = self.database.engine("chat" if n % 4 else "auth")
        with trio.move_on_after(0.05 * (n % 7) if n % 5 == 0 else 60):
            try:
                if n % 3 == 0:
                    await chat.read(names)
                elif n % 3 == 1:
                    await chat.write(partial(insert, f"w{n}"))
                else:
                    await SqlLogStore(chat).append(HERE, [message(f"m{n}")])
                    self.acknowledged.add(f"m{n}")
            except Unavailable as error:
                self.errors.append(error)
        self.ended += 1


async def dense_and_complete(database: Postgres, acknowledged: set[str]) -> None:
    entries = (await SqlLogStore(database.engine("chat")).read(HERE, 0, 10_000)).entries
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    keys = [entry.key for entry in entries]
    assert len(set(keys)) == len(keys)
    assert acknowledged <= set(keys)


async def test_on_a_frozen_server_every_call_ends_in_its_time_and_the_pool_recovers(server: PostgresServer) -> None:
    async with opened(server.url) as database:
        await SqlLogStore(database.engine("chat")).append(HERE, [message("before")])
        calls = Calls(database)
        server.freeze()
        try:
            with trio.fail_after(PROMISED_S + MARGIN_S):
                async with trio.open_nursery() as nursery:
                    for n in range(CALLS):
                        nursery.start_soon(calls.one, n)
            assert calls.ended == CALLS
            assert calls.errors
            assert not calls.acknowledged
            with pytest.raises(Unavailable):
                database.engine("chat").read(names).send(None)  # the breaker is open: refused without awaiting
        finally:
            server.thaw()
        await whole(database)
        await dense_and_complete(database, {"before"})


async def test_leaving_a_frozen_server_takes_no_time(server: PostgresServer) -> None:
    try:
        with trio.fail_after(5):
            async with opened(server.url) as database, trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(database.engine("chat").read, names)
                server.freeze()
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    finally:
        server.thaw()


async def test_who_still_waits_when_the_database_is_closed_is_told_so(server: PostgresServer) -> None:
    told: list[str] = []

    async def call(deed: Callable[[], Awaitable[object]]) -> None:
        try:
            await deed()
        except Unavailable as error:
            told.append(type(error).__name__)

    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as outer, opened(server.url) as database:
                chat = database.engine("chat")
                server.freeze()
                for n in range(8):
                    outer.start_soon(call, partial(chat.write_together, insert_all, f"{n}"))
                    await trio.testing.wait_all_tasks_blocked()
                outer.start_soon(call, partial(chat.write, partial(insert, "w")))
                outer.start_soon(call, partial(chat.read, names))
                await trio.testing.wait_all_tasks_blocked()
        for deed in (partial(chat.write_together, insert_all, "late"), partial(chat.read, names)):
            await call(deed)
    finally:
        server.thaw()
    assert sorted(told[:10]) == ["BackendDown"] * 6 + ["OutcomeUnknown"] * 4, "what had begun may be stored, the rest is not"
    assert len(told) == 12, "who comes later is refused"


async def test_one_frozen_backend_costs_one_call_its_connection(server: PostgresServer) -> None:
    async with opened(server.url) as database:
        with trio.fail_after(20):
            await database.engine("chat").read(partial(sleep, 0.0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ignoring, database, 30.0)
                await trio.testing.wait_all_tasks_blocked()
                for n in range(20):
                    await database.engine("chat").write(partial(insert, f"{n:02}"))
                nursery.cancel_scope.cancel()
        await whole(database)


async def _ignoring(database: Postgres, seconds: float) -> None:
    with suppress(Unavailable):
        await database.engine("chat").read(partial(sleep, seconds))


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_what_was_acknowledged_before_the_server_died_is_there_when_it_is_back(server: PostgresServer, how: str) -> None:
    async with opened(server.url) as database:
        calls = Calls(database)
        async with trio.open_nursery() as nursery:
            for n in range(CALLS // 2):
                nursery.start_soon(calls.one, n)
            await until(lambda: len(calls.acknowledged) >= 5)
            (server.kill if how == "killed" else server.stop)()
            for n in range(CALLS // 2, CALLS):
                nursery.start_soon(calls.one, n)
        assert calls.ended == CALLS
        assert calls.errors
        server.start()
        await whole(database)
        await dense_and_complete(database, calls.acknowledged)


async def test_a_quick_restart_is_not_noticed_by_who_calls_next(server: PostgresServer) -> None:
    async with opened(server.url) as database:
        engine = database.engine("chat")
        for n in range(5):
            await engine.write(partial(insert, f"a{n}"))
        server.stop()
        server.start()
        assert await engine.write(partial(insert, "b")) == "b"
        assert len(await engine.read(names)) == 6


@pytest.mark.parametrize("cut", ["before", "after", "hang"])
async def test_an_append_cut_off_at_its_commit_is_made_again_under_its_keys_and_stored_once(
    server: PostgresServer, cut: Cut
) -> None:
    async with wire(server) as between, opened(between.url) as database:
        log = SqlLogStore(database.engine("chat"))
        await log.append(HERE, [message("a")])
        between.cut = cut
        (second,) = await log.append(HERE, [message("b")])
        assert between.cuts == 1
        assert (second.entry.sequence, second.duplicate) == (2, cut == "after")
        (third,) = await log.append(HERE, [message("c")])
        assert third.entry.sequence == 3
        await dense_and_complete(database, {"a", "b", "c"})


@pytest.mark.parametrize("cut", ["before", "after", "hang"])
async def test_a_write_cut_off_at_its_commit_is_told_as_unknown_and_not_done_again(server: PostgresServer, cut: Cut) -> None:
    async with wire(server) as between, open_postgres(between.url, random=lambda: 0.5) as database:
        engine = database.engine("chat")
        between.cut = cut
        with pytest.raises(OutcomeUnknown):
            await engine.write(partial(insert, "a"))
        assert between.cuts == 1
        assert await engine.read(names) == (["a"] if cut == "after" else [])


async def test_a_caller_who_leaves_during_the_commit_appends_again_and_finds_one(server: PostgresServer) -> None:
    async with wire(server) as between, opened(between.url) as database:
        log = SqlLogStore(database.engine("chat"))
        between.cut = "after"
        answers: list[Appended] = []
        with trio.move_on_after(0.05):
            answers += await log.append(HERE, [message("a")])
        (again,) = await log.append(HERE, [message("a")])
        assert again.entry.sequence == 1
        await dense_and_complete(database, {"a"})


async def test_a_server_without_connections_left_is_an_outage_and_no_bug(server: PostgresServer) -> None:
    """20 are allowed there, twice 25 wanted here."""
    limits = PostgresLimits(pool=PoolLimits(ready_min=1))
    async with (
        open_postgres(server.url, random=lambda: 0.5, limits=limits) as database,
        open_postgres(server.url, random=lambda: 0.5, limits=limits) as other,
    ):
        ended: list[str] = []

        async def call(one: Postgres) -> None:
            try:
                ended.append(await one.engine("chat").read(partial(sleep, 0.3)))
            except Unavailable as error:
                ended.append(type(error).__name__)

        with trio.fail_after(PROMISED_S + MARGIN_S):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(call, database)
                    nursery.start_soon(call, other)
        assert len(ended) == 40
        assert "slept" in ended
        assert database.statistics().pool.dials_failed_total + other.statistics().pool.dials_failed_total > 0
        for _ in range(2):
            await database.prober().write(_noted)
        await whole(database)
