"""The pool over connections that are only counted: none is lost, whatever happens at the same moment."""

from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing

from secureconnect.backends.sql.postgres_connection import Connection
from secureconnect.backends.sql.postgres_pool import Pool, PoolLimits
from secureconnect.errors import BackendDown


class Fake:
    born_s = used_s = 0.0

    def __init__(self) -> None:
        self.is_clean = True

    def abort(self) -> None:
        self.is_clean = False


class Dials:
    """Each takes until the test says so."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.made: list[Fake] = []

    async def dial(self) -> Connection:
        await self.go.wait()
        self.made.append(Fake())
        return cast("Connection", self.made[-1])


async def nothing(connection: Connection) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_dial_that_succeeds_in_the_moment_of_closing_is_closed_too() -> None:
    """The keeper's, which nobody waits for, and a caller's."""
    dials, told = Dials(), list[str]()
    pool = Pool(dials.dial, PoolLimits(ready_min=1))

    async def call() -> None:
        with pytest.raises(BackendDown) as refused:
            await pool.run(nothing)
        told.append(str(refused.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.keep)
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        dials.go.set()
        pool.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(dials.made) == 2
    assert not any(fake.is_clean for fake in dials.made)
    assert told == ["The database is being closed"]


async def test_a_connection_that_comes_back_after_closing_is_not_kept() -> None:
    dials = Dials()
    dials.go.set()
    pool = Pool(dials.dial, PoolLimits(ready_min=0))

    async def close(connection: Connection) -> None:
        pool.close()
        cast("Fake", connection).is_clean = True  # it ended well all the same
        await trio.lowlevel.checkpoint()

    await pool.run(close)
    assert [fake.is_clean for fake in dials.made] == [False]
    assert pool.statistics().idle == 0
