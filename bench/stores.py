"""What do our stores and their stacks cost over the bare driver with its own pool?

Both sides do the same work on the same server: the same SQL and fsync, the same commands. `append` goes to one conversation; 50
in flight are 50 callers that each wait for their own answer. CPU is that of the side's process, threads and kernel included; the
database servers stand on the other core.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from sqlite3 import sqlite_version

import msgspec

from bench.harness.backing import postgres_server, redis_server
from bench.harness.cache import Missing
from bench.harness.load import Client
from bench.harness.measure import Options, middle
from bench.harness.processes import SERVER_CORE
from bench.harness.report import Cell, Report
from bench.sides.worker import Done

Load = tuple[str, int]  # operation, in flight
SQL_LOADS: Sequence[Load] = (("get", 1), ("get", 50), ("append", 1), ("append", 50))
REDIS_LOADS: Sequence[Load] = tuple((command, n) for command in ("GET", "SET", "PUBLISH") for n in (1, 50, 500))
PIPELINED = 50
"""In flight: from here on a multiplexed link can join requests."""


@dataclass(frozen=True, slots=True)
class Store:
    """One server and those who speak to it. Ours stand first, and make the tables."""

    name: str
    ours: tuple[str, ...]
    bare: tuple[str, ...]
    loads: Sequence[Load]

    @property
    def sides(self) -> tuple[str, ...]:
        return self.ours + self.bare


STORES = (
    Store("sqlite", ("sqlite",), ("sqlite3", "sqlite3-thread"), SQL_LOADS),
    Store("postgres", ("postgres",), ("asyncpg", "asyncpg-no-reset"), SQL_LOADS),
    Store("redis", ("redis", "redis-link"), ("redis-py-asyncio", "redis-py-sync"), REDIS_LOADS),
)
SHOWN = {
    "sqlite": "our engine",
    "sqlite3": "sqlite3",
    "sqlite3-thread": "sqlite3, off the loop",
    "postgres": "our stack",
    "asyncpg": "asyncpg.Pool",
    "asyncpg-no-reset": "asyncpg.Pool, no reset",
    "redis": "our client in its stack",
    "redis-link": "our link",
    "redis-py-asyncio": "redis-py asyncio",
    "redis-py-sync": "redis-py, threads",
}
Samples = dict[tuple[str, Load], list[Done]]


def run(options: Options) -> None:
    seconds = 0.1 if options.short else 1.0
    report = Report(
        "stores", "our stores against the bare drivers", {"seconds": seconds, "content_bytes": 128, "rounds": options.rounds}
    )
    for name in ("asyncpg", "redis", "hiredis"):
        report.version(name, version(name))
    report.version("sqlite", sqlite_version)
    for store in STORES:
        if not options.only or any(part in store.name for part in options.only):
            try:
                measure(store, options, seconds, report)
            except Missing as missing:
                report.missing(store.name, missing)
    report.save(options.out)


def measure(store: Store, options: Options, seconds: float, report: Report) -> None:
    loads = [load for load in store.loads if not options.short or load[0] in ("get", "append", "GET")]  # the others cost as GET
    samples: Samples = defaultdict(list)
    with sides_of(store) as sides:
        for load in loads:
            for client in sides.values():
                asked(client, load, seconds / 4)  # warm: pools filled, statements prepared
        for _ in range(options.rounds):
            for load in loads:
                for name, client in sides.items():
                    samples[name, load].append(asked(client, load, seconds))
    tell(store, loads, samples, report)


@contextmanager
def sides_of(store: Store) -> Iterator[dict[str, Client]]:
    """Each in a process of its own on the servers' core; the server they ask is on the load's."""
    with ExitStack() as stack:
        place = ""
        if store.name == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        elif store.name == "postgres":
            place = stack.enter_context(postgres_server()).url
        else:
            place = stack.enter_context(redis_server()).url
        sides: dict[str, Client] = {}
        for side in store.sides:
            argv = [sys.executable, "-m", "bench.sides.worker", side, place or str(Path(folder) / f"{side}.db")]
            sides[side] = Client(argv, core=SERVER_CORE)
            stack.callback(sides[side].close)
            sides[side].hear()
        yield sides


def asked(client: Client, load: Load, seconds: float) -> Done:
    client.tell(f"{load[0]} {load[1]} {seconds}")
    return msgspec.json.decode(client.hear(), type=Done)


def cpu_us(done: Done) -> float:
    return done.cpu_s * 1e6 / done.operations if done.operations else float("nan")


def wall_us(done: Done) -> float:
    return done.seconds * 1e6 / done.operations if done.operations else float("nan")


def times(samples: Samples, load: Load, mine: str, other: str) -> float:
    """CPU per operation as a multiple of another's, round by round."""
    pairs = zip(samples[mine, load], samples[other, load], strict=True)
    return middle(cpu_us(a) / cpu_us(b) for a, b in pairs)


def tell(store: Store, loads: Sequence[Load], samples: Samples, report: Report) -> None:
    ours, bare = store.ours[0], store.bare
    rows: list[list[Cell]] = []
    for load in loads:
        for side in store.sides:
            done = samples[side, load]
            ratio = times(samples, load, side, bare[0])
            rows.append(
                [f"{load[0]}, {load[1]} in flight", SHOWN[side], middle(map(cpu_us, done)), ratio, middle(map(wall_us, done))]
            )
    columns = ["operation", "side", "CPU µs", f"x {SHOWN[bare[0]]}", "wall µs"]
    report.table(f"{store.name}: CPU and wall time per operation", columns, rows)
    report.bars(
        f"{store.name}, CPU per operation",
        "µs",
        {
            f"{name}, {n}": {SHOWN[side]: middle(map(cpu_us, samples[side, (name, n)])) for side in store.sides}
            for name, n in loads
        },
    )
    for load in loads:
        for side in bare:
            what = f"{store.name} {load[0]}, {load[1]} in flight: CPU against {SHOWN[side]}"
            report.target(what, times(samples, load, ours, side), "<=", 1.5, unit="x")
    if store.name == "redis":
        for name, n in loads:
            if n >= PIPELINED:
                what = f"redis {name}, {n} in flight: our link's CPU against redis-py asyncio"
                report.target(what, times(samples, (name, n), "redis-link", "redis-py-asyncio"), "<=", 0.2, unit="x")
