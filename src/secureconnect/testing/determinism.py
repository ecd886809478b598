"""Runs a world: seeded scheduling, virtual time, and guards against what virtual time makes of a bug.

What makes a trio program repeatable: the scheduler's own random numbers seeded and its deterministic order switched on, no
garbage collection at a moment of its choosing, no threads, and every choice drawn from a stream of the world. A deadlock would
make the event loop spin for ever (nothing is runnable and no time is due), and a livelock looks like progress: both end the run
with a violation and the tree of tasks.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio
import trio._core._run as scheduler

from secureconnect.testing.world import World

TURNS_MAX = 2_000_000
"""Turns of the event loop; a world of a minute with 3 nodes and 20 clients takes some 200,000."""


class Deadlock(Exception):
    """Every task waits, and nothing will happen, not even by cancelling all. Its text is the tree of tasks."""


def simulate(
    world: World, main: Callable[[World], Awaitable[None]], *, trace_steps: bool = False, turns_max: int = TURNS_MAX
) -> None:
    """Run `main(world)` to its end; what went wrong is in `world.violations`, an exception that comes out of it too.

    `trace_steps`: hash every scheduling decision too (9 % slower).
    """
    instruments: list[trio.abc.Instrument] = [_Budget(world, turns_max)]
    if trace_steps:
        instruments.append(_StepTracer(world))
    with _deterministic(world.seed), _deadlock_guard(world):
        try:
            trio.run(world.live, main, clock=world.clock, instruments=instruments)
        except Deadlock:
            pass  # it is among the violations
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, Deadlock):
                raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding of this seed, and a sweep goes on
            world.violations.append(f"exception: {_described(error)}")


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    flag, state, was_collecting = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate(), gc.isenabled()
    setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  # Final for type checkers, made for harnesses
    scheduler._r.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()
        scheduler._r.setstate(state)
        setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", flag)  # noqa: B010


@contextmanager
def _deadlock_guard(world: World) -> Iterator[None]:
    """The clock jumps when everybody waits; then somebody must be waiting for a time."""
    jump = world.clock._autojump

    def checked() -> None:
        statistics = trio.lowlevel.current_statistics()
        if statistics.seconds_to_next_deadline != float("inf") or statistics.run_sync_soon_queue_size:
            jump()
        elif not world.task_tree:
            world.task_tree = task_tree()
            world.violate("deadlock", "every task waits and no time is due")
            world.end()
        else:
            raise Deadlock(world.task_tree)

    setattr(world.clock, "_autojump", checked)  # noqa: B010  # the clock's hook for the loop
    yield


class _Budget(trio.abc.Instrument):
    """So many turns of the loop, then the run ends."""

    def __init__(self, world: World, turns: int) -> None:
        self._world = world
        self._left = turns

    def before_io_wait(self, timeout: float) -> None:
        self._left -= 1
        if self._left == 0:
            self._world.task_tree = task_tree()
            self._world.violate("runaway", "the loop turned too often")
            self._world.end()


class _StepTracer(trio.abc.Instrument):
    """Hashes every scheduling decision, the strictest check of determinism there is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers: dict[trio.lowlevel.Task, int] = {}
        self._count = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self._count += 1
        self._numbers[task] = self._count

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._numbers.pop(task, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._world.step(self._numbers.get(task, 0))


def _described(error: BaseException) -> str:
    """An exception with those inside it and the place where each was raised."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_described(inner) for inner in error.exceptions)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" at {place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}"
    return f"{error!r}{where}"


def task_tree() -> str:
    """Every task with where it waits, children indented."""
    lines: list[str] = []

    def walk(task: trio.lowlevel.Task, depth: int) -> None:
        frames = [f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{line}" for frame, line in task.iter_await_frames()]
        lines.append("  " * depth + f"{task.name} <- {' '.join(frames[-4:])}")
        for nursery in task.child_nurseries:
            for child in sorted(nursery.child_tasks, key=lambda one: one._counter):
                walk(child, depth + 1)

    root = trio.lowlevel.current_root_task()
    if root is not None:
        walk(root, 0)
    return "\n".join(lines)


def task_count(root: trio.lowlevel.Task) -> int:
    """`root` and everything below it."""
    return 1 + sum(task_count(child) for nursery in root.child_nurseries for child in nursery.child_tasks)
