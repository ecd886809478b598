"""`python -m bench.sides.worker SIDE PLACE`: one side; a line `OPERATION IN_FLIGHT SECONDS` in, a line of JSON out.

PLACE is the URL of the server, or the file of the database.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from bench.sides import bare, ours
from bench.sides.work import AsyncSide, Operation, SyncSide

ASYNC: Mapping[str, tuple[str, AsyncSide]] = {
    "sqlite": ("trio", ours.sqlite),
    "postgres": ("trio", ours.postgres),
    "redis": ("trio", ours.redis_client),
    "redis-link": ("trio", ours.redis_link),
    "sqlite3-thread": ("trio", bare.sqlite_off_the_loop),
    "asyncpg": ("asyncio", partial(bare.asyncpg_pool, resets=True)),
    "asyncpg-no-reset": ("asyncio", partial(bare.asyncpg_pool, resets=False)),
    "redis-py-asyncio": ("asyncio", bare.redis_asyncio),
}
SYNC: Mapping[str, SyncSide] = {"sqlite3": bare.sqlite_module, "redis-py-sync": bare.redis_sync}


class Done(msgspec.Struct, frozen=True):
    """What one command brought. An operation that goes wrong ends the side with its traceback."""

    operations: int
    seconds: float
    cpu_s: float


@dataclass(slots=True)
class Meter:
    """Counts operations until the time is over."""

    seconds: float
    operations: int = 0
    began_s: float = 0.0
    began_cpu_s: float = 0.0

    def start(self) -> None:
        self.began_s, self.began_cpu_s = time.monotonic(), time.process_time()

    def goes_on(self) -> bool:
        return time.monotonic() < self.began_s + self.seconds

    def done(self) -> Done:
        return Done(self.operations, time.monotonic() - self.began_s, time.process_time() - self.began_cpu_s)


def main() -> None:
    _, side, place = sys.argv
    if side in SYNC:
        serve_sync(SYNC[side], place)
    else:
        backend, made = ASYNC[side]
        anyio.run(serve, made, place, backend=backend)


async def serve(side: AsyncSide, place: str) -> None:
    async with side(place) as operations:
        tell("ready")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):  # the loop goes on: links are kept alive
            name, in_flight, seconds = line.split()
            tell(await measured(operations[name], int(in_flight), float(seconds)))


async def measured(operation: Operation, in_flight: int, seconds: float) -> Done:
    meter = Meter(seconds)

    async def one() -> None:
        while meter.goes_on():
            await operation()
            meter.operations += 1

    meter.start()
    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(one)
    return meter.done()


def serve_sync(side: SyncSide, place: str) -> None:
    with side(place) as (operations, wants_threads):
        tell("ready")
        for line in sys.stdin:
            name, in_flight, seconds = line.split()
            tell(measured_sync(operations[name], int(in_flight) if wants_threads else 1, float(seconds)))


def measured_sync(operation: Callable[[], object], threads: int, seconds: float) -> Done:
    meter = Meter(seconds)
    counts = [0] * threads
    errors: list[BaseException] = []

    def one(place: int) -> None:
        try:
            while meter.goes_on():
                operation()
                counts[place] += 1
        except BaseException as error:
            errors.append(error)
            raise

    meter.start()
    if threads == 1:
        one(0)
    else:
        workers = [threading.Thread(target=one, args=(place,)) for place in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]
    meter.operations = sum(counts)
    return meter.done()


def tell(what: object) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)


if __name__ == "__main__":
    main()
