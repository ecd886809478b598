"""Five hundred callers who leave at random while the server is frozen: each is free in time, and nothing is left of them."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import anyio
import pytest
from tests.backends.storm import CALLERS, MARGIN_S, Storm, sockets, until
from tests.services.redis import RedisServer

from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.link import Link
from secureconnect.errors import Unavailable
from secureconnect.resilience import REDIS, BreakerLimits, Policy, Stack

pytestmark = [pytest.mark.anyio, pytest.mark.service, pytest.mark.slow]

FROZEN_S = 3.0
"""Longer than any call, and than the watchdog's verdict."""
OPEN_DOOR = replace(REDIS, attempt_s=REDIS.total_s, breaker=BreakerLimits(failures_max=10**9, calls_min=10**9))
"""Nobody is refused for what happened to others, or sooner than promised: every caller waits on the frozen server itself."""


async def probe(client: Client) -> None:
    """As health does it."""
    while True:
        with suppress(Unavailable), anyio.move_on_after(REDIS.total_s):
            await client.stack.breaker.probe(client.probe)
        await anyio.sleep(client.stack.breaker.pause_s(random.random()))


@pytest.mark.parametrize("policy", [REDIS, OPEN_DOOR], ids=["with its breaker", "without"])
async def test_on_a_frozen_server_every_scope_ends_in_its_time_and_nothing_is_mixed_up_or_left(
    redis_server: RedisServer, policy: Policy
) -> None:
    tasks_before, sockets_before = len(anyio.get_running_tasks()), sockets()
    async with anyio.create_task_group() as tasks:
        link = Link(redis_server.address, "command", random=random.random)
        await tasks.start(link.run)
        client = Client(link, Stack(policy, random=random.random))
        tasks.start_soon(probe, client)
        await until(lambda: link.is_connected)
        tasks_open = len(anyio.get_running_tasks())

        async def echo(word: str) -> str:
            answer = await client.command("ECHO", word, changes=False, is_repeatable=True)
            assert isinstance(answer, bytes)
            return answer.decode()

        storm = Storm(echo, promised_s=policy.total_s, longest_s=1.2)
        await storm.run(redis_server.freeze, redis_server.thaw, frozen_s=FROZEN_S)
        assert storm.left >= CALLERS or policy is REDIS
        assert storm.refused
        assert storm.late_s <= storm.sleeps_late_s + MARGIN_S
        await until(lambda: link.waiting == 0 and not any(client.stack.statistics().in_use.values()))
        assert client.stack.statistics().breaker == "closed"
        await until(lambda: len(redis_server.connections("command")) == 1)
        await until(lambda: len(anyio.get_running_tasks()) == tasks_open)
        tasks.cancel_scope.cancel()
    await until(lambda: (len(anyio.get_running_tasks()), sockets()) == (tasks_before, sockets_before))
