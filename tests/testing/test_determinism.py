"""A simulated run ends, whatever the program in it does, and says why."""

from __future__ import annotations

import trio

from secureconnect.testing.determinism import simulate
from secureconnect.testing.fault_plan import Fault, shrink
from secureconnect.testing.world import World


def test_a_deadlock_is_a_violation_with_the_tree_of_tasks() -> None:
    async def main(world: World) -> None:
        await trio.sleep(3)
        await trio.Event().wait()

    world = World(1)
    simulate(world, main)
    assert world.violations == ["deadlock: every task waits and no time is due"]
    assert "test_determinism.py:" in world.task_tree


def test_a_loop_that_never_waits_for_time_is_a_violation() -> None:
    async def main(world: World) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    world = World(1)
    simulate(world, main, turns_max=1_000)
    assert world.violations == ["runaway: the loop turned too often"]


def test_an_exception_is_a_violation_that_names_its_place() -> None:
    async def main(world: World) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            raise ValueError("oh")

    world = World(1)
    simulate(world, main)
    (violation,) = world.violations
    assert violation.startswith("exception: ValueError('oh') at test_determinism.py:")


def test_the_seed_decides_the_order_of_tasks_and_nothing_else_does() -> None:
    async def main(world: World) -> None:
        async def step(number: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                world.trace(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(step, number)

    def digest(seed: int) -> str:
        world = World(seed)
        simulate(world, main, trace_steps=True)
        return world.digest()

    assert digest(1) == digest(1) != digest(2)


def test_shrinking_leaves_the_faults_that_are_needed_together() -> None:
    plan = [Fault(number, "cut", number * 1.0, 1.0, number) for number in range(40)]
    needed = shrink(plan, lambda faults: {7, 31} <= {fault.number for fault in faults})
    assert [fault.number for fault in needed] == [7, 31]
