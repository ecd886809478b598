"""Five hundred callers who leave at random while the server is frozen: each is free in time, and the pool is whole afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import trio
from tests.backends.sql.postgres_kit import need_postgres
from tests.backends.storm import CALLERS, MARGIN_S, Storm, sockets, until

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.postgres import Postgres, PostgresLimits, open_postgres
from secureconnect.errors import Unavailable
from secureconnect.resilience import SQL, BreakerLimits, Policy
from secureconnect.testing.postgres_server import PostgresServer

pytestmark = [pytest.mark.service, pytest.mark.slow]

FROZEN_S = 7.0
"""Longer than any call."""
NOTE = "INSERT INTO probes (node, at_us) VALUES ($1, 0) ON CONFLICT (node) DO UPDATE SET at_us = 1 RETURNING node"
OPEN_DOOR = replace(
    SQL,
    attempt_s=SQL.total_s,
    breaker=BreakerLimits(failures_max=10**9, calls_min=10**9),
    lanes=tuple(replace(lane, waiting_max=CALLERS, wait_s=SQL.total_s) for lane in SQL.lanes),
)
"""Nobody is refused for what happened to others, or for a full line: all wait for what is frozen."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need_postgres()
    made = PostgresServer(durable=False)
    try:
        made.create()
        yield made
    finally:
        made.remove()


def said(word: str) -> Plan[str]:
    ((answer,),) = yield "SELECT $1::text", (word,)
    return str(answer)


def noted(word: str) -> Plan[str]:
    """May be done twice, as what is written together must."""
    ((answer,),) = yield NOTE, (word,)
    return str(answer)


def noted_all(words: object) -> Plan[list[str]]:
    assert isinstance(words, list)
    answers = []
    for word in words:
        answer = yield from noted(f"{word}+")
        answers += [answer.removesuffix("+")]
    return answers


async def probe(database: Postgres) -> None:
    """As health does it."""
    while True:
        with suppress(Unavailable):
            await database.prober().write(_touch)
        await trio.sleep(database.stack.breaker.pause_s(0.5))


def _touch() -> Plan[None]:
    yield NOTE, ("prober",)


@pytest.mark.parametrize("policy", [SQL, OPEN_DOOR], ids=["with its breaker and lines", "without"])
async def test_on_a_frozen_server_every_scope_ends_in_its_time_and_nothing_is_mixed_up_or_left(
    server: PostgresServer, policy: Policy
) -> None:
    tasks_before, sockets_before = trio.lowlevel.current_statistics().tasks_living, sockets()
    async with (
        open_postgres(server.url, random=lambda: 0.5, limits=PostgresLimits(policy)) as database,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(probe, database)
        await until(lambda: database.statistics().pool.idle >= 5)

        def tasks() -> int:
            """Without the one that reads each connection."""
            return trio.lowlevel.current_statistics().tasks_living - database.statistics().pool.idle

        tasks_open = tasks()
        chat, auth = database.engine("chat"), database.engine("auth")

        async def say(word: str) -> str:
            caller, _, turn = word.partition("/")
            engine = auth if int(caller) % 5 == 0 else chat
            if int(turn) % 4 == 3:
                return await engine.write(partial(noted, word))
            if int(turn) % 4 == 1:
                return await engine.write_together(noted_all, word)
            return await engine.read(partial(said, word))

        storm = Storm(say, promised_s=policy.total_s, longest_s=6.0)
        await storm.run(server.freeze, server.thaw, frozen_s=FROZEN_S)
        assert storm.left >= CALLERS or policy is SQL
        assert storm.refused
        assert storm.late_s <= storm.sleeps_late_s + MARGIN_S

        def is_whole() -> bool:
            now = database.statistics()
            is_idle = not any(now.stack.in_use.values()) and not any(now.stack.waiting.values())
            return is_idle and not now.orphans and not database.together.waiting and now.pool.idle >= 5

        await until(is_whole)
        assert database.statistics().stack.breaker == "closed"
        held = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'test' AND pid <> pg_backend_pid()"
        await until(lambda: int(server.sql(held)) in range(database.statistics().pool.idle, database.statistics().pool.idle + 2))
        await until(lambda: tasks() == tasks_open)
        nursery.cancel_scope.cancel()
    await until(lambda: (trio.lowlevel.current_statistics().tasks_living, sockets()) == (tasks_before, sockets_before))
