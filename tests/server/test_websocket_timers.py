"""The shared clock of all sockets, under virtual time."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from secureconnect.server.websocket_timers import TICKS_PER_S, Timers


class Item:
    """Is due at the given moments, one after another, and notes when it was visited."""

    def __init__(self, *moments_s: float) -> None:
        self.tick = 0
        self.moments_s = list(moments_s)
        self.visits_s: list[float] = []

    def due(self, now_s: float) -> float:
        self.visits_s.append(now_s)
        return self.moments_s.pop(0) if self.moments_s else math.inf


@asynccontextmanager
async def running() -> AsyncIterator[Timers]:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield timers
        nursery.cancel_scope.cancel()


async def test_an_item_is_visited_at_its_time_and_at_those_it_asks_for(autojump_clock: MockClock) -> None:
    async with running() as timers:
        start_s, item = trio.current_time(), Item()
        item.moments_s = [start_s + 25, start_s + 60]
        timers.at(start_s + 10, item)
        await trio.sleep(100)
    assert [round(at_s - start_s, 2) for at_s in item.visits_s] == [10, 25, 60]


async def test_it_is_never_early_and_at_most_a_tick_late(autojump_clock: MockClock) -> None:
    async with running() as timers:
        start_s = trio.current_time()
        items = {start_s + n * 0.07: Item() for n in range(1, 50)}
        for when_s, item in items.items():
            timers.at(when_s, item)
        await trio.sleep(10)
    for when_s, item in items.items():
        assert len(item.visits_s) == 1
        assert 0 <= item.visits_s[0] - when_s <= 1 / TICKS_PER_S + 1e-9


async def test_an_earlier_time_moves_the_visit_and_a_later_one_does_not(autojump_clock: MockClock) -> None:
    async with running() as timers:
        start_s, item = trio.current_time(), Item()
        timers.at(start_s + 25, item)
        await trio.sleep(1)
        timers.at(start_s + 3, item)
        timers.at(start_s + 60, item)
        await trio.sleep(100)
    assert [round(at_s - start_s) for at_s in item.visits_s] == [3]


async def test_what_is_forgotten_is_not_visited_also_not_by_a_visit_of_its_neighbour(autojump_clock: MockClock) -> None:
    async with running() as timers:
        gone, late = Item(), Item()

        class Forgetful(Item):
            def due(self, now_s: float) -> float:
                timers.forget(late)
                return super().due(now_s)

        now_s = trio.current_time()
        for item in (gone, Forgetful(), late):
            timers.at(now_s + 5, item)
        timers.forget(gone)
        timers.forget(gone)
        await trio.sleep(100)
    assert gone.visits_s == []
    assert late.visits_s == []


@pytest.mark.parametrize("asked_s", [-5.0, 0.0, math.inf])
async def test_the_past_is_visited_soon_and_infinity_never(asked_s: float, autojump_clock: MockClock) -> None:
    async with running() as timers:
        item = Item()
        timers.at(asked_s, item)
        await trio.sleep(1)
    assert len(item.visits_s) == (asked_s != math.inf)


async def test_an_item_that_is_always_due_does_not_stop_the_world(autojump_clock: MockClock) -> None:
    async with running() as timers:
        item = Item(*[0.0] * 1000)
        timers.at(0.0, item)
        with trio.fail_after(20):
            await trio.sleep(10)
    assert len(item.visits_s) <= 10 * TICKS_PER_S + 2
