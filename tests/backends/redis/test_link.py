"""The link and its client against a real server that is frozen, killed, paused, filled and emptied."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.services.redis import RedisServer, running_redis

from secureconnect.backends.redis.address import Address
from secureconnect.backends.redis.client import PROBE_KEY, Client
from secureconnect.backends.redis.connection import Limits, connect
from secureconnect.backends.redis.link import Link, Script
from secureconnect.backends.redis.replies import ConnectionLost, Reply
from secureconnect.errors import BackendDown, BreakerOpen, DeadlineExceeded, OutcomeUnknown, StorageFull, Unavailable
from secureconnect.resilience import REDIS, Stack

pytestmark = [pytest.mark.anyio, pytest.mark.service]

CANCELS = 200
PATIENCE_S = 20.0


@asynccontextmanager
async def running(address: Address, use: str = "command", limits: Limits | None = None) -> AsyncIterator[Link]:
    link = Link(address, use, random=random.random, limits=limits)
    async with anyio.create_task_group() as tasks:
        await tasks.start(link.run)
        yield link
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what a server does sets no event of ours
            await anyio.sleep(0.01)


async def answered(link: Link, *parts: str | int) -> Reply:
    """Asked again until there is an answer, as a retry would."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                return await link.command(*parts)
            except Unavailable:
                await anyio.sleep(0.02)


async def test_commands_of_many_callers_share_one_connection_and_each_gets_its_own_answer(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:

        async def ask(n: int) -> None:
            for k in range(10):
                assert await link.command("ECHO", f"{n}/{k}") == f"{n}/{k}".encode()

        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(ask, n)
        assert len(redis_server.connections("command")) == 1
        assert (link.generation, link.waiting) == (1, 0)


async def test_two_hundred_callers_leave_a_frozen_server_in_time_and_the_link_goes_on_in_order(redis_server: RedisServer) -> None:
    """Its watchdog is off: the same connection has to get over two hundred late answers."""
    over = bytearray()
    async with running(redis_server.address, limits=Limits(answer_s=60)) as link:

        async def ask(n: int) -> None:
            with anyio.move_on_after(random.uniform(0, 0.2)) as scope:
                await link.command("ECHO", n)
            over.append(scope.cancelled_caught)

        with redis_server.frozen():
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    for n in range(CANCELS):
                        tasks.start_soon(ask, n)
            assert over.count(1) == CANCELS
        with anyio.fail_after(5):
            for n in range(CANCELS):
                assert await link.command("ECHO", f"after {n}") == f"after {n}".encode()
        assert (link.generation, link.waiting) == (1, 0)


async def test_a_server_frozen_for_three_seconds_is_noticed_and_taken_back(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        await link.command("SET", "x", 1)
        with redis_server.frozen():
            with anyio.fail_after(5), pytest.raises(ConnectionLost, match="no answer within") as lost:
                await link.command("GET", "x")
            assert lost.value.was_sent
            assert not link.is_connected
            with pytest.raises(ConnectionLost) as refused:
                link.command("GET", "x").send(None)
            assert not refused.value.was_sent
            await anyio.sleep(2)
        assert await answered(link, "GET", "x") == b"1"
        assert link.generation == 2


async def test_a_frozen_server_is_noticed_although_nobody_asks_it_anything(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        with redis_server.frozen():
            await until(lambda: not link.is_connected)
        await until(lambda: link.is_connected)


async def test_a_killed_server_is_dialled_until_it_is_back(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        redis_server.kill()
        await until(lambda: link.lost_total > 3)
        with pytest.raises(BackendDown):
            await link.command("GET", "x")
        redis_server.start()
        assert await answered(link, "GET", "x") is None
        assert link.generation == 2


async def test_every_single_cut_of_the_connection_is_got_over(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        for n in range(5):
            redis_server.cut("command")
            assert await answered(link, "ECHO", n) == b"%d" % n
        assert 2 <= link.generation <= 6


async def test_a_node_may_start_while_redis_is_away(redis_server: RedisServer) -> None:
    redis_server.kill()
    with anyio.fail_after(5):
        async with running(redis_server.address) as link:
            assert not link.is_connected
            redis_server.start()
            assert await answered(link, "PING") == b"PONG"


async def test_a_server_slow_by_three_seconds_is_away_and_not_waited_for(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        redis_server.ask("CLIENT", "PAUSE", 3_000, "ALL")
        with anyio.fail_after(5), pytest.raises(ConnectionLost):
            await link.command("GET", "x")
        assert await answered(link, "ECHO", "back") == b"back"


async def test_a_full_server_refuses_writes_with_an_error_of_its_own_and_answers_reads(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        await link.command("SET", "x", "kept")
        redis_server.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StorageFull, match="OOM"):
            await link.command("SET", "y", "refused")
        assert await link.command("GET", "x") == b"kept"
        redis_server.ask("CONFIG", "SET", "maxmemory", 0)
        assert await link.command("SET", "y", "taken") == b"OK"
        assert link.generation == 1


async def test_a_script_survives_that_the_server_forgets_it(redis_server: RedisServer) -> None:
    script = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    async with running(redis_server.address) as link:
        assert await link.script(script, keys=["n"], arguments=[2]) == 2
        assert await link.script(script, keys=["n"], arguments=[2]) == 4
        redis_server.ask("SCRIPT", "FLUSH")
        assert await link.script(script, keys=["n"], arguments=[2]) == 6
        redis_server.restart()
        await answered(link, "PING")
        assert await link.script(script, keys=["n"], arguments=[2]) == 2
        text = redis_server.ask("INFO", "commandstats")
        assert isinstance(text, dict)
        assert text["cmdstat_eval"]["calls"] == 1, "sent whole only when it is unknown"


async def test_it_logs_in_and_chooses_its_database(tmp_path: Path) -> None:
    with running_redis(tmp_path, requirepass="secret") as server:
        address = Address("127.0.0.1", server.port, 5, None, "secret")
        async with running(address) as link:
            await link.command("SET", "x", 1)
            info = await link.command("CLIENT", "INFO")
            assert isinstance(info, bytes)
            assert {b"db=5", b"resp=3"} <= set(info.split())
        for wrong in (Address("127.0.0.1", server.port), Address("127.0.0.1", server.port, 0, None, "wrong")):
            with pytest.raises(BackendDown, match=r"NOAUTH|WRONGPASS"):
                async with connect(wrong, "me"):
                    pytest.fail("it is let in")


async def test_it_ends_at_once_also_while_the_server_is_frozen(redis_server: RedisServer) -> None:
    with redis_server.frozen(), anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            link = Link(redis_server.address, "command", random=random.random)
            tasks.start_soon(link.run)
            await anyio.sleep(0.05)
            tasks.cancel_scope.cancel()


# -- the client: a link inside its stack


@asynccontextmanager
async def clients(server: RedisServer) -> AsyncIterator[Client]:
    async with running(server.address) as link:
        yield Client(link, Stack(REDIS, random=random.random))


async def test_the_client_rides_out_a_cut_connection(redis_server: RedisServer) -> None:
    async with running(redis_server.address) as link:
        client = Client(link, Stack(REDIS, random=lambda: 0.99))
        redis_server.cut("command")
        with anyio.fail_after(PATIENCE_S):
            assert await client.command("SET", "x", 1, changes=True, is_repeatable=True) == b"OK"
        assert client.stack.statistics().breaker == "closed"


async def test_every_call_of_a_frozen_server_ends_within_its_deadline_and_soon_at_once(redis_server: RedisServer) -> None:
    kinds: list[type[Exception]] = []
    async with clients(redis_server) as client:

        async def ask() -> None:
            try:
                await client.command("INCR", "x", changes=True, is_repeatable=False)
            except Unavailable as error:
                kinds.append(type(error))

        with redis_server.frozen(), anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(ask)
            with pytest.raises(BreakerOpen):
                client.command("INCR", "x", changes=True, is_repeatable=False).send(None)
        assert set(kinds) == {OutcomeUnknown}, "sent, and nobody knows"
        await until(lambda: client.link.waiting == 0)
        await answered(client.link, "PING")
        await client.stack.breaker.probe(client.probe)
        assert await client.command("ECHO", "x", changes=False, is_repeatable=True) == b"x"
        assert redis_server.ask("EXISTS", PROBE_KEY) == 1


async def test_a_read_without_an_answer_is_late_and_not_of_unknown_outcome(redis_server: RedisServer) -> None:
    async with clients(redis_server) as client:
        with redis_server.frozen(), anyio.fail_after(5), pytest.raises(DeadlineExceeded):
            await client.command("GET", "x", changes=False, is_repeatable=False)


@pytest.mark.parametrize(("changes", "error"), [(True, OutcomeUnknown), (False, ConnectionLost)], ids=["write", "read"])
async def test_a_write_whose_connection_is_lost_may_have_been_done_and_a_read_was_not(
    redis_server: RedisServer, changes: bool, error: type[Exception]
) -> None:
    async with clients(redis_server) as client:
        redis_server.ask("CLIENT", "PAUSE", 3_000, "ALL")
        errors: list[Exception] = []

        async def call() -> None:
            try:
                await client.command("INCR" if changes else "GET", "x", changes=changes, is_repeatable=False)
            except Unavailable as raised:
                errors.append(raised)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: client.link.waiting == 1)
            client.link.cut("by the test")
        assert [type(one) for one in errors] == [error]
        assert client.stack.statistics().retries_total == 0


async def test_a_full_server_does_not_open_the_breaker(redis_server: RedisServer) -> None:
    async with clients(redis_server) as client:
        redis_server.ask("CONFIG", "SET", "maxmemory", 1)
        for _ in range(30):
            with pytest.raises(StorageFull):
                await client.command("SET", "x", 1, changes=True, is_repeatable=True)
        assert client.stack.statistics().breaker == "closed"
        assert client.stack.statistics().retries_total == 0
