"""The engine on a real PostgreSQL that is well: transactions, lanes, the pool, every trap of the driver that needs no outage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import pytest
import structlog
import trio
import trio.testing
from tests.backends.sql.postgres_kit import INSERT, LOCK, NAMES, held, insert, insert_all, names, sleep, until, wait_for_lock

from secureconnect.backends.sql import postgres_connection
from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.backends.sql.postgres import Postgres, PostgresLimits, open_postgres
from secureconnect.backends.sql.postgres_connection import SETTINGS
from secureconnect.backends.sql.postgres_pool import PoolLimits
from secureconnect.errors import BackendDown, BadRequest, ConfigError, Conflict, DeadlineExceeded, OutcomeUnknown, Overloaded
from secureconnect.features.log.model import MESSAGE_CREATED, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId
from secureconnect.resilience import SQL, Contention, Lane
from secureconnect.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.service

SMALL = replace(
    SQL,
    permits=3,
    lanes=(Lane("auth", 1, 1, 1.0), Lane("chat", 1, 2, 1.0), Lane("background", 1, 1, 5.0)),
    attempt_s=20.0,
    total_s=30.0,
)
"""One connection for each lane, and time enough for a test that holds them."""


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[Postgres]:
    async with open_postgres(server.url, random=lambda: 0.5) as opened:
        yield opened


async def test_a_plan_is_stored_whole_or_not_at_all(database: Postgres) -> None:
    def refused() -> Plan[None]:
        yield INSERT, ("undone", b"")
        raise Conflict("no")

    engine = database.engine("chat")
    assert await engine.write(partial(insert, "a")) == "a"
    with pytest.raises(Conflict):
        await engine.write(refused)
    assert await engine.read(names) == ["a"]
    assert database.statistics().pool.torn_total == 0, "a refusal costs no connection"


async def test_a_statement_that_is_wrong_stays_a_bug_and_costs_no_connection(database: Postgres) -> None:
    engine = database.engine("chat")
    await engine.write(partial(insert, "a"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await engine.write(partial(insert, "a"))
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await engine.read(partial(_one, "SELEKT 1"))
    assert await engine.read(names) == ["a"]
    assert database.statistics().pool.torn_total == 0


async def test_text_that_the_database_cannot_hold_is_the_callers_fault(database: Postgres) -> None:
    with pytest.raises(BadRequest, match=r"U\+0000"):
        await database.engine("chat").write(partial(insert, "a\0b"))


async def test_a_plan_of_several_reads_sees_one_snapshot(database: Postgres, server: PostgresServer) -> None:
    made: list[int] = []

    def twice() -> Plan[tuple[int, int]]:
        made.append(1)
        before = yield NAMES, ()
        server.sql(f"INSERT INTO digests (node, epoch, number, data, at_us) VALUES ('n{len(made)}', 0, 0, '', 0)")
        after = yield NAMES, ()
        return len(before), len(after)

    engine = database.engine("chat")
    before, after = await engine.read(twice)
    assert before == after
    assert len(made) == 2, "made again inside a transaction"
    before, after = await engine.read(twice)
    assert before == after
    assert len(made) == 3, "and from then on at once"


async def test_a_lost_serialization_runs_the_plan_again(database: Postgres, server: PostgresServer) -> None:
    """Two engines, as two nodes: every increment counts."""

    def increment() -> Plan[None]:
        ((at_us,),) = yield "SELECT at_us FROM probes WHERE node = 'n'", ()
        yield "UPDATE probes SET at_us = $1 WHERE node = 'n'", (_whole(at_us) + 1,)

    server.sql("INSERT INTO probes VALUES ('n', 0)")

    async def count(one: Postgres) -> None:
        for _ in range(20):
            await one.engine("chat").write(increment)

    async with open_postgres(server.url, random=lambda: 0.5) as other:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(count, database)
                    nursery.start_soon(count, other)
        reruns = database.statistics().stack.reruns_total + other.statistics().stack.reruns_total
    assert server.sql("SELECT at_us FROM probes") == "80"
    assert reruns > 0
    assert database.statistics().stack.breaker == "closed", "contention is no failure"


async def test_a_deadlock_is_a_lost_serialization_too(database: Postgres, server: PostgresServer) -> None:
    server.sql("ALTER SYSTEM SET deadlock_timeout = '50ms'")
    server.sql("SELECT pg_reload_conf()")

    def both(first: int, second: int) -> Plan[None]:
        yield "SELECT pg_advisory_xact_lock($1)", (first,)
        yield "SELECT pg_sleep(0.1)", ()
        yield "SELECT pg_advisory_xact_lock($1)", (second,)

    engine = database.engine("chat")
    with trio.fail_after(30):
        while not database.statistics().stack.reruns_total:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.write, partial(both, 11, 12))
                nursery.start_soon(engine.write, partial(both, 12, 11))


async def test_two_nodes_append_to_one_conversation_at_once_densely_and_each_entry_once(
    database: Postgres, server: PostgresServer
) -> None:
    here = ConversationId("here")

    async def append(one: Postgres, name: str) -> None:
        store = SqlLogStore(one.engine("chat"))
        for n in range(15):
            key = f"{name}{n}"
            await store.append(here, [NewEntry(key, MESSAGE_CREATED, b"{}", UserId("ada"), 1, MessageId(key))])

    async with open_postgres(server.url, random=lambda: 0.5) as other:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for name in "ab":
                    nursery.start_soon(append, database, name)
                for name in "cd":
                    nursery.start_soon(append, other, name)
        entries = (await SqlLogStore(other.engine("chat")).read(here, 0, 100)).entries
    assert [(e.sequence, e.message_number) for e in entries] == [(n, n) for n in range(1, 61)]
    assert sorted(e.key for e in entries) == sorted(f"{name}{n}" for name in "abcd" for n in range(15))


async def test_writes_that_wait_together_share_a_transaction(database: Postgres, server: PostgresServer) -> None:
    engine, calls, answers = database.engine("chat"), list[int](), dict[str, str]()

    def counted(items: Any) -> Plan[Any]:  # noqa: ANN401 (of write_together)
        calls.append(len(items))
        yield "SELECT pg_advisory_xact_lock_shared($1)", (LOCK,)
        return (yield from insert_all(items))

    async def write(name: str) -> None:
        answers[name] = await engine.write_together(counted, name)

    async with trio.open_nursery() as nursery:
        with held(server):
            for n in range(24):
                nursery.start_soon(write, f"{n:02}")
                if n < 4:
                    await until(lambda n=n: len(calls) > n)  # type: ignore[misc]  # mypy takes no default in a lambda
            await trio.testing.wait_all_tasks_blocked()
    assert calls == [1, 1, 1, 1, 20]
    assert answers == {f"{n:02}": f"{n:02}" for n in range(24)}


async def test_when_a_shared_transaction_fails_each_item_stands_alone(database: Postgres) -> None:
    engine, answers = database.engine("chat"), dict[str, str]()

    def picky(items: Any) -> Plan[Any]:  # noqa: ANN401 (of write_together)
        results = yield from insert_all(items)
        if "bad" in items:
            raise Conflict("bad")
        return results

    async def write(name: str) -> None:
        try:
            answers[name] = await engine.write_together(picky, name)
        except Conflict as error:
            answers[name] = error.word

    async with trio.open_nursery() as nursery:
        for name in ("a", "bad", "b", "c", "d", "e"):
            nursery.start_soon(write, name)
    assert answers == {"bad": "CONFLICT", **{name: name.upper() for name in "abcde"}}
    assert await engine.read(names) == list("abcde")


async def test_a_full_line_refuses_at_once_and_logins_go_on(server: PostgresServer) -> None:
    async with open_postgres(server.url, random=lambda: 0.5, limits=PostgresLimits(policy=SMALL)) as database:
        chat, auth = database.engine("chat"), database.engine("auth")
        async with trio.open_nursery() as nursery:
            with held(server):
                for n in range(3):
                    nursery.start_soon(chat.write, partial(wait_for_lock, f"{n}"))
                    await trio.testing.wait_all_tasks_blocked()
                assert database.queues()["sql_chat"]["depth"] == 2
                with pytest.raises(Overloaded) as refused:
                    chat.read(names).send(None)  # a coroutine that raises at its first step has awaited nothing
                assert (refused.value.word, refused.value.retry_after_s) == ("DB_POOL_EXHAUSTED", 1.0)
                assert await auth.read(names) == []
                assert await database.prober().write(partial(insert, "probe")) == "probe"
        assert await chat.read(names) == ["0", "1", "2", "probe"]


async def test_who_waits_too_long_for_a_connection_is_refused_with_nothing_done(server: PostgresServer) -> None:
    lanes = tuple(replace(lane, wait_s=0.05) for lane in SMALL.lanes)
    async with open_postgres(server.url, random=lambda: 0.5, limits=PostgresLimits(replace(SMALL, lanes=lanes))) as database:
        chat = database.engine("chat")
        async with trio.open_nursery() as nursery:
            with held(server):
                nursery.start_soon(chat.write, partial(wait_for_lock, "first"))
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(Overloaded) as refused:
                    await chat.write(partial(insert, "second"))
                assert refused.value.word == "DB_POOL_EXHAUSTED"
        assert await chat.read(names) == ["first"]


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_slow_statement_ends_with_its_attempt_and_its_connection(server: PostgresServer, kind: str) -> None:
    """And the server stops working on it: what is left there would keep its locks."""
    lanes = tuple(replace(lane, wait_s=0.5) for lane in SQL.lanes)
    policy = replace(SQL, attempt_s=0.2, total_s=1.0, retry=replace(SQL.retry, retries_max=0), lanes=lanes)
    async with open_postgres(server.url, random=lambda: 0.5, limits=PostgresLimits(policy)) as database:
        engine = database.engine("chat")
        with trio.fail_after(10), pytest.raises(OutcomeUnknown if kind == "write" else DeadlineExceeded):
            await (engine.write if kind == "write" else engine.read)(partial(sleep, 60.0))
        assert database.statistics().pool.torn_total == 1
        assert await engine.read(names) == []
        await until(lambda: database.statistics().orphans == 0)
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
        await until(lambda: server.sql(running) == "0")


async def test_a_call_that_is_cancelled_never_leaves_a_connection_in_an_open_transaction(
    database: Postgres, server: PostgresServer
) -> None:
    engine = database.engine("chat")
    with held(server):
        for n in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.write, partial(wait_for_lock, f"{n}"))
                await until(lambda: database.statistics().pool.in_use == 1)
                nursery.cancel_scope.cancel()
            assert await engine.read(names) == []
    assert database.statistics().pool.torn_total == 5
    await until(lambda: database.statistics().orphans == 0)
    assert await engine.read(names) == [], "what was left has been undone"


async def test_a_connection_that_died_unseen_is_replaced_before_anything_is_sent(
    database: Postgres, server: PostgresServer
) -> None:
    """psql blocks this thread, so the loop has not yet heard of the death when the next call takes the connection."""
    engine = database.engine("chat")
    await engine.read(names)
    torn = database.statistics().pool.torn_total
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()")
    assert await engine.write(partial(insert, "a")) == "a"
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()")
    assert await engine.read(names) == ["a"]
    assert database.statistics().pool.torn_total > torn
    assert database.statistics().stack.retries_total == 0, "no retry of the stack was needed"


async def test_the_keeper_has_connections_ready_and_replaces_the_dead(database: Postgres, server: PostgresServer) -> None:
    await until(lambda: database.statistics().pool.idle == 5)
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()")
    await until(lambda: database.statistics().pool.dialled_total >= 10 and database.statistics().pool.idle == 5)


async def test_an_old_connection_is_not_given_out_again(server: PostgresServer) -> None:
    limits = PostgresLimits(pool=PoolLimits(ready_min=0, life_s=0.0))
    async with open_postgres(server.url, random=lambda: 0.5, limits=limits) as database:
        for _ in range(3):
            await database.engine("chat").read(names)
        assert database.statistics().pool.dialled_total == 3


async def test_the_server_ends_what_a_client_left_behind(database: Postgres) -> None:
    """Tearing a connection does not stop the statement on it: the server must notice by itself."""

    def settings() -> Plan[dict[str, str]]:
        rows = yield "SELECT name, setting FROM pg_settings", ()
        return {str(name): str(value) for name, value in rows if name in SETTINGS}

    assert await database.engine("chat").read(settings) == SETTINGS


async def test_a_setting_that_the_server_does_not_know_is_left_out(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older servers, poolers and CockroachDB know fewer."""
    monkeypatch.setattr(postgres_connection, "SETTINGS", {**SETTINGS, "no_such_setting": "1"})
    async with open_postgres(server.url, random=lambda: 0.5) as database:
        assert await database.engine("chat").read(names) == []


async def test_a_commit_that_answers_rollback_stored_nothing(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a failed transaction PostgreSQL takes a COMMIT without an error, and rolls back."""
    rows = postgres_connection.Connection._rows

    async def swallowing(self: Any, text: str, values: Any) -> Any:  # noqa: ANN401 (as the method)
        try:
            return await rows(self, text, values)
        except asyncpg.PostgresError:
            return []

    monkeypatch.setattr(postgres_connection.Connection, "_rows", swallowing)

    def failing() -> Plan[None]:
        yield INSERT, ("a", b"")
        yield "SELEKT 1", ()

    with pytest.raises(Contention):
        await database.engine("chat").write(failing)
    assert await database.engine("chat").read(names) == []


async def test_after_a_change_of_the_schema_a_prepared_statement_is_made_anew(database: Postgres, server: PostgresServer) -> None:
    """Another node's migration must not cost this one its writes."""

    def star() -> Plan[int]:
        yield "SELECT 1", ()
        rows = yield "SELECT * FROM probes", ()
        return len(rows)

    engine = database.engine("chat")
    await engine.write(star)
    server.sql("ALTER TABLE probes ADD COLUMN more TEXT")
    assert await engine.write(star) == 0


async def test_without_a_server_the_start_says_so(server: PostgresServer) -> None:
    url = server.url.replace(f":{server.port}", ":1")
    with pytest.raises(BackendDown):
        async with open_postgres(url, random=lambda: 0.5):
            raise AssertionError("opened")


async def test_a_server_that_accepts_and_says_nothing_holds_nobody(server: PostgresServer) -> None:
    """A dial is given up by hanging up under it, whatever it had reached."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        with trio.fail_after(10), structlog.testing.capture_logs() as logs, pytest.raises(BackendDown):
            async with open_postgres(server.url.replace(f":{server.port}", f":{port}"), random=lambda: 0.5):
                raise AssertionError("opened")
    assert logs == [], "no orphan is left, and no descriptor was closed under the loop"


@pytest.mark.parametrize("wrong", ["password", "database", "rights", "host"])
async def test_what_an_operator_must_mend_stops_the_start_and_is_named(server: PostgresServer, wrong: str) -> None:
    """A wrong password must not look like a server that is away, for which a node would wait for ever."""
    hba = server.folder / "data" / "pg_hba.conf"
    if not server.sql("SELECT 1 FROM pg_roles WHERE rolname = 'guest'"):
        hba.write_text("host all guest 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        server.sql("CREATE ROLE guest LOGIN PASSWORD 'right'")
        server.sql("SELECT pg_reload_conf()")
    url, words = {
        "password": (server.url.replace("postgres@", "guest:wrong@"), "password is wrong"),
        "database": (server.url.replace("/test", "/nowhere"), "no such database"),
        "rights": (server.url.replace("postgres@", "guest:right@"), "may not create tables"),
        "host": ("postgresql:///test", "names no host"),
    }[wrong]
    with pytest.raises(ConfigError, match=words) as refused:
        async with open_postgres(url, random=lambda: 0.5):
            raise AssertionError("opened")
    assert "wrong@" not in str(refused.value)


def _one(text: str) -> Plan[None]:
    yield text, ()


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
