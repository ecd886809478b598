"""Short work and calls at a time, in virtual time."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.hub.errands import Errands, Timers


async def test_work_is_done_in_the_order_of_asking_also_what_was_asked_before(autojump_clock: MockClock) -> None:
    errands, done = Errands(), list[int]()

    async def work(n: int) -> None:
        await trio.sleep(n)
        done.append(n)

    errands.begin(partial(work, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.run)
        await wait_all_tasks_blocked()
        errands.begin(partial(work, 1))
        await trio.sleep(9)
        errands.begin(partial(work, 0))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert done == [1, 2, 0]


async def test_work_carries_nothing_of_whoever_asked_for_it(autojump_clock: MockClock) -> None:
    request, seen = ContextVar("request", default="none"), list[str]()

    async def work() -> None:
        seen.append(request.get())
        await trio.lowlevel.checkpoint()

    errands = Errands()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(errands.run)
        await wait_all_tasks_blocked()
        request.set("mine")
        errands.begin(work)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == ["none"]


async def test_calls_come_at_their_time_and_together_in_the_order_of_asking(autojump_clock: MockClock) -> None:
    timers, called = Timers(), list[tuple[str, float]]()
    began = trio.current_time()

    def call(name: str) -> None:
        called.append((name, round(trio.current_time() - began, 6)))

    timers.at(began + 5, partial(call, "five"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await wait_all_tasks_blocked()
        timers.at(began + 9, partial(call, "nine"))
        timers.at(began + 2, partial(call, "two"))
        timers.at(began + 2, partial(call, "two again"))
        timers.at(began + 2, partial(timers.at, began + 1, partial(call, "past")))
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert called == [("two", 2), ("two again", 2), ("past", 2), ("five", 5), ("nine", 9)]
