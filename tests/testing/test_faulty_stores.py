"""A store that fails on demand: what each way to fail does to a caller, and what the books say of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from secureconnect.errors import BackendDown, OutcomeUnknown
from secureconnect.testing.determinism import simulate
from secureconnect.testing.faulty_stores import Condition, Mode, Wire, faulty
from secureconnect.testing.world import World


class Shelf:
    """A store of numbers."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    async def put(self, number: int) -> None:
        self.kept.append(number)

    async def count(self) -> int:
        return len(self.kept)


def in_mode(mode: Mode, test: Callable[[Shelf, Shelf, Condition, Wire], Awaitable[None]], *, seed: int = 1) -> World:
    """Run `test` with the shelf, the shelf as a node reaches it, the state of the service, and the node's wire."""
    world = World(seed, go_on=True)

    async def main(world: World) -> None:
        condition = Condition(world, "shelf", refused=lambda: BackendDown("sql"), lost=OutcomeUnknown, call_s_max=5.0)
        shelf, wire = Shelf(), Wire()
        condition.become(mode)
        await test(shelf, faulty(shelf, condition, wire, writes=["put"]), condition, wire)

    simulate(world, main)
    return world


def test_a_store_that_refuses_does_nothing() -> None:
    async def test(shelf: Shelf, seen: Shelf, condition: Condition, wire: Wire) -> None:
        with pytest.raises(BackendDown):
            await seen.put(1)
        assert shelf.kept == []

    assert in_mode("fail", test).violations == []


def test_half_a_write_is_done_and_its_answer_is_lost_mostly() -> None:
    async def test(shelf: Shelf, seen: Shelf, condition: Condition, wire: Wire) -> None:
        lost = 0
        for number in range(20):
            try:
                await seen.put(number)
            except OutcomeUnknown:
                lost += 1
        assert shelf.kept == list(range(20))
        assert 5 < lost < 20

    assert in_mode("half", test).violations == []


def test_a_zombie_writes_when_its_caller_has_given_up() -> None:
    async def test(shelf: Shelf, seen: Shelf, condition: Condition, wire: Wire) -> None:
        with trio.move_on_after(0.3):
            await seen.put(1)
        assert shelf.kept == []
        await trio.sleep(8)
        assert shelf.kept == [1]

    assert in_mode("zombie", test).violations == []


def test_who_waits_longer_than_the_promise_is_found_by_name() -> None:
    async def test(shelf: Shelf, seen: Shelf, condition: Condition, wire: Wire) -> None:
        with trio.move_on_after(6):
            await seen.count()
        assert condition.longest_s == 6

    assert in_mode("hang", test).violations == ["store call too long: shelf.count took 6.0 s"]


def test_no_call_of_a_node_without_power_does_anything() -> None:
    async def test(shelf: Shelf, seen: Shelf, condition: Condition, wire: Wire) -> None:
        wire.is_cut = True
        with trio.move_on_after(100):
            await seen.put(1)
        assert shelf.kept == []

    assert in_mode("ok", test).violations == []
