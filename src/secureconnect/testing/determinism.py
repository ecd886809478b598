"""One process, one thread, one seed: a world with a virtual clock in which the same seed gives the same run.

What makes a trio program repeatable: the scheduler's own random numbers seeded and its deterministic order switched on, no
garbage collection at a moment of its choosing, no threads, and every choice drawn from a stream of the world. Virtual time has
two traps: when everything waits and no deadline is pending, trio would spin for ever (`Deadlock`); and a loop that spins without
waiting looks like progress (`Runaway`). Both end the run as violations.
"""

from __future__ import annotations

import gc
import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio
import trio._core._run as scheduler
from trio.testing import MockClock

from secureconnect.ids import as_uuid
from secureconnect.ports import T

START_US = 1_700_000_000_000_000
"""Wall time at the virtual second 0."""
LOOPS_MAX = 3_000_000
"""Turns of the event loop that a run may take."""
VIOLATIONS_MAX = 20


class World:
    """The seed's streams of chance, its clock, its trace and what went wrong in it."""

    def __init__(self, seed: int, *, keep: bool = False) -> None:
        """`keep`: also keep the trace's lines, for reading."""
        self.seed = seed
        self.violations: list[str] = []
        self.seen: dict[str, int] = {}
        """What is known to have happened, and how often: a fault that never came proves nothing."""
        self.lines: list[str] = []
        self.clock = MockClock(autojump_threshold=0)
        self._keep = keep
        self._streams: dict[str, random.Random] = {}
        self._hash = hashlib.blake2b(digest_size=12)

    def rng(self, name: str) -> random.Random:
        """A stream of its own for each user of chance: one more draw in one does not shift the others."""
        if name not in self._streams:
            self._streams[name] = random.Random(f"{name}:{self.seed}")
        return self._streams[name]

    def now(self) -> float:
        return self.clock.current_time()

    def trace(self, *what: object) -> None:
        line = f"{self.now():.6f} " + " ".join(map(str, what))
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def sometimes(self, name: str) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1

    def violate(self, kind: str, detail: str) -> None:
        self.trace("VIOLATION", kind, detail)
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{kind}: {detail}")

    def digest(self) -> str:
        """Of everything traced so far."""
        return self._hash.hexdigest()


class Deadlock(Exception):
    """Every task waits and no deadline is pending."""


class Runaway(Exception):
    """The loop turned `LOOPS_MAX` times."""


class _Budget(trio.abc.Instrument):
    def __init__(self) -> None:
        self.left = LOOPS_MAX

    def before_io_wait(self, timeout: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Runaway


def simulate(world: World, main: Callable[[World], Awaitable[None]]) -> None:
    """Run `main` under the world's seed; what it raises becomes a violation."""
    jump = world.clock._autojump

    def checked_jump() -> None:
        if trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf"):
            raise Deadlock
        jump()

    world.clock._autojump = checked_jump  # type: ignore[method-assign]  # the place where trio would spin
    with _determined(world.seed):
        try:
            trio.run(main, world, clock=world.clock, instruments=[_Budget()])
        except Exception as error:  # noqa: BLE001  # whatever ends the run is a finding, and the sweep goes on
            world.violations.append(f"crash: {error!r} {_reason(error)}")


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}" if place else ""
    return f"{type(error).__name__}: {error}{where}"


@contextmanager
def _determined(seed: int) -> Iterator[None]:
    ordered, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  # Final for type checkers, meant for harnesses
    scheduler._r.seed(seed)
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()
        setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", ordered)  # noqa: B010
        scheduler._r.setstate(state)


class WorldClock:
    """`ports.Clock` of a world: wall time goes with virtual time, plus what a fault adds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.skew_us = 0

    def now_us(self) -> int:
        return START_US + round(self._world.now() * 1_000_000) + self.skew_us


class WorldRng:
    """`ports.Rng` of a world."""

    def __init__(self, world: World, name: str) -> None:
        self._random = world.rng(f"rng {name}")

    def random(self) -> float:
        return self._random.random()

    def secret(self, size: int) -> bytes:
        return self._random.randbytes(size)


class WorldIds:
    """`ports.Ids` of a world."""

    def __init__(self, world: World, name: str) -> None:
        self._random = world.rng(f"ids {name}")

    def new(self) -> str:
        return as_uuid(self._random.randbytes(16))


class InlineBlocking:
    """`ports.Blocking` without threads, which a virtual clock cannot wait for."""

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        return work()
