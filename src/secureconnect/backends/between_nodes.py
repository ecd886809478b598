"""What nodes share over Redis: a link for commands, one to publish by, and the stores and the bus on them.

Importing this page needs the extra `redis`: only where a server is configured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from secureconnect.backends.bundle import Shared, Watched
from secureconnect.backends.redis.address import Address
from secureconnect.backends.redis.bus import RedisBus
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.leases import RedisLeaseStore
from secureconnect.backends.redis.link import Link
from secureconnect.backends.redis.lockout import RedisLockoutStore
from secureconnect.backends.redis.rates import RedisRateStore
from secureconnect.ports import Rng
from secureconnect.resilience import Policy, Stack


@asynccontextmanager
async def open_redis(url: str, *, policy: Policy, rng: Rng) -> AsyncIterator[Shared]:
    """Dial the server and share over it for the length of the block. One that is away is dialled on: a node starts without it.

    Raises: ConfigError, for the URL. Leaving the block waits for no server.
    """
    address = Address.from_url(url)
    command, publisher = Link(address, "command", random=rng.random), Link(address, "publish", random=rng.random)
    client = Client(command, Stack(policy, random=rng.random))

    async def probe() -> None:
        await client.stack.breaker.probe(client.probe)

    async with trio.open_nursery() as nursery:
        try:
            for link in (command, publisher):
                await nursery.start(link.run)
            yield Shared(
                bus=RedisBus(publisher),
                rates=RedisRateStore(client),
                lockouts=RedisLockoutStore(client),
                leases=RedisLeaseStore(client),
                watched=(Watched("redis", probe, client.stack),),
                generation=lambda: command.generation,
            )
        finally:
            nursery.cancel_scope.cancel()
