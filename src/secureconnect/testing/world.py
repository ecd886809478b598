"""The world of one seed: its chance, its clock, what happened in it, what should not have, and `ports` that come from it.

    def test_it() -> None:
        world = World(seed=7)
        simulate(world, scenario)            # determinism; `async def scenario(world: World) -> None`
        assert world.violations == []

The same seed gives the same run, to the scheduler's last step (`World.digest`). What a simulated program uses must come from here
or be passed in: time from the event loop and `WorldClock`, chance from `World.rng`, connections from `simulated_network`.
Threads, real sockets, `id()`, `hash()` of text and the order of sets break it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

from secureconnect.ids import as_uuid
from secureconnect.ports import T

START_US = 1_768_000_000_000_000
"""Wall time at the virtual second 0: in January 2026."""
VIOLATIONS_KEPT = 20


class World:
    """Made for one run. `keep_log`: keep the trace's lines, not only their hash. `go_on`: do not end at the first violation."""

    def __init__(self, seed: int, *, keep_log: bool = False, go_on: bool = False) -> None:
        self.seed = seed
        self.log: list[str] = []
        self.violations: list[str] = []
        self.seen: dict[str, int] = {}
        """How often each point was reached that should be reached sometimes: a fault that never happens proves nothing."""
        self.clock = MockClock(autojump_threshold=0)
        self.task_tree = ""
        """The tasks at the moment of a deadlock or a runaway."""
        self._keep_log = keep_log
        self._go_on = go_on
        self._streams: dict[str, random.Random] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self._background: Callable[..., None] | None = None
        self._scope = trio.CancelScope()

    def rng(self, name: str) -> random.Random:
        """The stream of one component: a further draw in one does not shift the others."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = random.Random(f"{name}:{self.seed}")
        return stream

    def now(self) -> float:
        """Virtual seconds since the start, which is what `trio.current_time` says."""
        return self.clock.current_time()

    def trace(self, *what: object) -> None:
        """Something happened. It goes into the hash by which two runs are compared."""
        line = f"{self.now():.6f} " + " ".join(map(str, what))
        self._hash.update(line.encode())
        if self._keep_log:
            self.log.append(line)

    def step(self, task: int) -> None:
        """The scheduler runs this task."""
        self._hash.update(b"%d@%r" % (task, self.now()))

    def digest(self) -> str:
        """The hash of everything traced so far."""
        return self._hash.hexdigest()

    def sometimes(self, name: str) -> None:
        """A point that should be reached in some seeds."""
        self.seen[name] = self.seen.get(name, 0) + 1

    def violate(self, kind: str, detail: str = "") -> None:
        """An invariant does not hold. The run ends soon, unless the world goes on."""
        self.trace("VIOLATION", kind, detail)
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(f"{kind}: {detail}")
        if not self._go_on:
            self.end()

    def end(self) -> None:
        """Everything ends soon."""
        self._scope.cancel()

    def begin(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run `work(*args)` beside everything else, in the world's own nursery; it ends with the world at the latest."""
        assert self._background is not None, "the world is not running"
        self._background(work, *args)

    async def live(self, main: Callable[[World], Awaitable[None]]) -> None:
        """Run `main` until it returns or an invariant is violated; then everything ends."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._background = nursery.start_soon
                try:
                    await main(self)
                finally:
                    self._background = None
                nursery.cancel_scope.cancel()


class WorldClock:
    """A `ports.Clock`: wall time that goes with virtual time. `skew_us` is this machine's error; it may change at any time."""

    def __init__(self, world: World) -> None:
        self.skew_us = 0
        self._world = world

    def now_us(self) -> int:
        return START_US + round(self._world.now() * 1_000_000) + self.skew_us


class WorldRng:
    """A `ports.Rng` from a stream of the world."""

    def __init__(self, world: World, name: str) -> None:
        self._stream = world.rng(name)

    def random(self) -> float:
        return self._stream.random()

    def secret(self, size: int) -> bytes:
        return self._stream.randbytes(size)


class WorldIds:
    """A `ports.Ids` from a stream of the world."""

    def __init__(self, world: World, name: str) -> None:
        self._stream = world.rng(name)

    def new(self) -> str:
        return as_uuid(self._stream.randbytes(16))


class InlineBlocking:
    """A `ports.Blocking` without threads: a thread beside a virtual clock loses every race."""

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()
