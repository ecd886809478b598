"""The bare drivers, each with its own pool at its best settings: the same SQL, the same fsync, the same commands.

In their favour: no plan, no stack, no deadline; PostgreSQL's appends are READ COMMITTED, where the lock of the conversation's
head orders them, so none is ever run twice (ours are SERIALIZABLE). `sqlite3` has one writer anyway: its appends follow one
another in one thread, each with its own commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis
import redis.asyncio
import trio

from bench.sides.work import KEY, VALUE, Operation, new_conversation, new_message, same
from secureconnect.backends.sql.log import COUNT_HEADS, INSERT_ENTRIES, INSERT_MESSAGES, SELECT_KNOWN, SELECT_MESSAGE
from secureconnect.backends.sql.sqlite_file import WRITER_CACHE_KIB, open_all, translated
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId

POOL: Final = 25
"""Connections, as our pool has at most."""
REDIS_POOL: Final = 50
"""Beyond it callers wait: redis-py's own pools refuse above 100."""


def one_row(template: str, columns: int) -> str:
    return template.replace("{rows}", "(" + ", ".join(f"${n}" for n in range(1, columns + 1)) + ")")


KNOWN, HEAD, ENTRY, MESSAGE = (
    one_row(SELECT_KNOWN, 2),
    one_row(COUNT_HEADS, 5),
    one_row(INSERT_ENTRIES, 9),
    one_row(INSERT_MESSAGES, 8),
)


def entry_row(conversation: ConversationId, sequence: int, number: int, new: NewEntry) -> tuple[object, ...]:
    return conversation, sequence, number, new.kind, new.key, new.actor, new.at_us, new.message, None


def message_row(conversation: ConversationId, sequence: int, number: int, new: NewEntry) -> tuple[object, ...]:
    return conversation, number, sequence, new.message, new.actor, new.at_us, 0, new.data


@contextmanager
def sqlite_module(place: str) -> Iterator[tuple[Mapping[str, Callable[[], object]], bool]]:
    made = open_all(Path(place), readers=0)  # the tables
    for one in (made.writer, made.checkpointer):
        one.close()
    with closing(sqlite3.connect(place, isolation_level=None, cached_statements=256, check_same_thread=False)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", f"cache_size=-{WRITER_CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        yield sqlite_operations(connection.execute), False


def sqlite_operations(execute: Callable[..., sqlite3.Cursor]) -> Mapping[str, Callable[[], object]]:
    conversation, first = new_conversation(), new_message()
    get_text, known, head, entry, message = map(translated, (SELECT_MESSAGE, KNOWN, HEAD, ENTRY, MESSAGE))

    def store(new: NewEntry) -> None:
        execute("BEGIN IMMEDIATE")
        same(execute(known, (conversation, new.key)).fetchall(), [])
        ((_, sequence, number),) = execute(head, (conversation, 1, 1, 1, new.at_us)).fetchall()
        execute(entry, entry_row(conversation, sequence, number, new))
        execute(message, message_row(conversation, sequence, number, new))
        execute("COMMIT")

    def get() -> None:
        same(execute(get_text, (first.message, conversation)).fetchone()[1], 1)

    store(first)
    return {"get": get, "append": lambda: store(new_message())}


@asynccontextmanager
async def sqlite_off_the_loop(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    """The same, as an event loop may call it without standing still: one thread at a time, by Trio's own means."""
    one = trio.CapacityLimiter(1)
    with sqlite_module(place) as (operations, _):
        yield {name: partial(trio.to_thread.run_sync, operation, limiter=one) for name, operation in operations.items()}


@asynccontextmanager
async def asyncpg_pool(place: str, *, resets: bool) -> AsyncIterator[Mapping[str, Operation]]:
    """`resets`: as the pool is out of the box, which asks the server to clean a connection that is given back."""

    async def no_reset(_: object) -> None: ...

    options: dict[str, Any] = {} if resets else {"reset": no_reset}
    async with asyncpg.create_pool(place, min_size=POOL, max_size=POOL, **options) as pool:
        conversation, first = new_conversation(), new_message()

        async def store(new: NewEntry) -> None:
            async with pool.acquire() as connection, connection.transaction():
                same(await connection.fetch(KNOWN, conversation, new.key), [])
                ((_, sequence, number),) = await connection.fetch(HEAD, conversation, 1, 1, 1, new.at_us)
                await connection.execute(ENTRY, *entry_row(conversation, sequence, number, new))
                await connection.execute(MESSAGE, *message_row(conversation, sequence, number, new))

        async def get() -> None:
            same((await pool.fetchrow(SELECT_MESSAGE, first.message, conversation))[1], 1)

        await store(first)
        yield {"get": get, "append": lambda: store(new_message())}


@asynccontextmanager
async def redis_asyncio(place: str) -> AsyncIterator[Mapping[str, Operation]]:
    pool = redis.asyncio.BlockingConnectionPool.from_url(place, max_connections=REDIS_POOL, timeout=None)
    async with redis.asyncio.Redis.from_pool(pool) as client:  # hiredis parses for it too
        await client.set(KEY, VALUE)

        async def get() -> None:
            same(await client.get(KEY), VALUE)

        async def put() -> None:
            same(await client.set(KEY, VALUE), True)

        async def publish() -> None:
            same(await client.publish(KEY, VALUE), 0)

        yield {"GET": get, "SET": put, "PUBLISH": publish}


@contextmanager
def redis_sync(place: str) -> Iterator[tuple[Mapping[str, Callable[[], object]], bool]]:
    pool = redis.BlockingConnectionPool.from_url(place, max_connections=REDIS_POOL, timeout=None)
    with redis.Redis.from_pool(pool) as client:
        client.set(KEY, VALUE)
        yield (
            {
                "GET": lambda: same(client.get(KEY), VALUE),
                "SET": lambda: same(client.set(KEY, VALUE), True),
                "PUBLISH": lambda: same(client.publish(KEY, VALUE), 0),
            },
            True,
        )
