"""Our side: the stores as a node has them, and Redis' client in its stack (and its link without)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.sides.work import KEY, VALUE, Operation, new_conversation, new_message, same
from secureconnect.backends.bundle import Bundle
from secureconnect.backends.distributed import open_distributed
from secureconnect.backends.embedded import open_embedded
from secureconnect.backends.redis.address import Address
from secureconnect.backends.redis.client import Client
from secureconnect.backends.redis.link import Link
from secureconnect.backends.system import SystemClock, SystemRng
from secureconnect.ids import NodeId
from secureconnect.resilience import REDIS, Stack

NODE = NodeId("bench")


@asynccontextmanager
async def sqlite(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    async with open_embedded(Path(place), node=NODE, clock=SystemClock()) as bundle:
        yield await log_operations(bundle)


@asynccontextmanager
async def postgres(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    async with open_distributed(place, node=NODE, clock=SystemClock(), rng=SystemRng()) as (bundle, _):
        yield await log_operations(bundle)


async def log_operations(bundle: Bundle) -> Mapping[str, Operation]:
    """`get` one message, `append` one to the one conversation of this side."""
    log, conversation, first = bundle.log, new_conversation(), new_message()
    await log.append(conversation, [first])
    assert first.message is not None
    message = first.message

    async def get() -> None:
        found = await log.message(conversation, message)
        same(found and found.sequence, 1)

    async def append() -> None:
        (appended,) = await log.append(conversation, [new_message()])
        same(appended.duplicate, False)

    return {"get": get, "append": append}


@asynccontextmanager
async def redis_client(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    async with dialled(place) as link:
        client = Client(link, Stack(REDIS, random=random.random))

        async def get() -> object:
            return await client.command("GET", KEY, changes=False, is_repeatable=True)

        async def put() -> object:
            return await client.command("SET", KEY, VALUE, changes=True, is_repeatable=True)

        async def publish() -> object:
            return await client.command("PUBLISH", KEY, VALUE, changes=True, is_repeatable=False)

        yield checked(get, put, publish)


@asynccontextmanager
async def redis_link(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    async with dialled(place) as link:
        yield checked(
            lambda: link.command("GET", KEY),
            lambda: link.command("SET", KEY, VALUE),
            lambda: link.command("PUBLISH", KEY, VALUE),
        )


@asynccontextmanager
async def dialled(place: str) -> AsyncIterator[Link]:
    link = Link(Address.from_url(place), "bench", random=random.random)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        same(await link.command("SET", KEY, VALUE), b"OK")
        yield link
        nursery.cancel_scope.cancel()


def checked(
    get: Callable[[], Awaitable[object]], put: Callable[[], Awaitable[object]], publish: Callable[[], Awaitable[object]]
) -> Mapping[str, Operation]:
    async def checked_get() -> None:
        same(await get(), VALUE)

    async def checked_set() -> None:
        same(await put(), b"OK")

    async def checked_publish() -> None:
        same(await publish(), 0)

    return {"GET": checked_get, "SET": checked_set, "PUBLISH": checked_publish}
