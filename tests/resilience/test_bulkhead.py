"""Who is admitted, who waits, who comes next; and that every permit comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import anyio
import anyio.lowlevel
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.resilience.kit import answering, refused_at_once
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.errors import Overloaded
from secureconnect.resilience import Bulkhead, Caller, Lane, Lines

AUTH = Lane("auth", reserved=1, waiting_max=2, wait_s=1.0)
CHAT = Lane("chat", reserved=2, waiting_max=3, wait_s=1.0)
REST = Lane("rest", reserved=0, waiting_max=9, wait_s=5.0)
LANES = (AUTH, CHAT, REST)
PERMITS = 5
"""Two of them shared."""


def entered(lines: Lines, lane: str, count: int) -> list[Caller]:
    callers = [caller for _ in range(count) if (caller := lines.enter(lane)) is not None]
    assert len(callers) == count
    return callers


def test_a_lane_takes_its_own_permits_and_the_shared_ones_and_leaves_the_others_theirs() -> None:
    lines = Lines(PERMITS, LANES)
    assert [caller.is_admitted for caller in entered(lines, "rest", 4)] == [True, True, False, False]
    assert [caller.is_admitted for caller in entered(lines, "auth", 2)] == [True, False]
    assert [caller.is_admitted for caller in entered(lines, "chat", 3)] == [True, True, False]
    assert lines.in_use == {"auth": 1, "chat": 2, "rest": 2}
    assert lines.waiting == {"auth": 1, "chat": 1, "rest": 2}


def test_a_full_line_takes_nobody_and_is_counted() -> None:
    lines = Lines(PERMITS, LANES)
    entered(lines, "auth", 1 + 2 + AUTH.waiting_max)
    assert lines.enter("auth") is None
    assert lines.full_total == 1
    assert lines.enter("chat") is not None, "another lane's line is its own"


def test_an_own_permit_goes_to_the_own_lane_and_a_shared_one_round() -> None:
    lines = Lines(PERMITS, LANES)
    auth, chat = entered(lines, "auth", 5), entered(lines, "chat", 4)
    rest = entered(lines, "rest", 3)
    assert lines.in_use == {"auth": 3, "chat": 2, "rest": 0}
    assert lines.leave(auth[0]) == (auth[3],), "auth was first in turn for the shared permits"
    assert lines.leave(auth[1]) == (chat[2],)
    assert lines.leave(auth[2]) == (rest[0],)
    assert lines.leave(auth[3]) == (auth[4],), "this one was auth's own"
    assert lines.leave(chat[0]) == (chat[3],), "nobody of auth waits any more"
    assert lines.leave(chat[1]) == (rest[1],)
    assert lines.leave(rest[0]) == (rest[2],), "nobody else waits"


def test_in_a_lane_the_first_come_is_the_first_served_and_who_left_is_skipped() -> None:
    lines = Lines(1, [Lane("only", reserved=0, waiting_max=9, wait_s=1)])
    inside, first, second, third = entered(lines, "only", 4)
    assert lines.leave(second) == ()
    assert lines.leave(inside) == (first,)
    assert lines.leave(first) == (third,)
    assert lines.leave(third) == ()
    assert lines.in_use == {"only": 0}


def test_lanes_that_all_want_everything_get_equal_parts_of_what_is_shared() -> None:
    lines = Lines(4, [Lane(name, reserved=0, waiting_max=10_000, wait_s=1) for name in ("a", "b", "c")])
    inside = entered(lines, "a", 4)
    entered(lines, "a", 900)
    entered(lines, "b", 300)
    entered(lines, "c", 300)
    served: Counter[str] = Counter()
    for _ in range(600):
        admitted = lines.leave(inside.pop(0))
        served.update(caller.lane for caller in admitted)
        inside += admitted
    assert served == {"a": 200, "b": 200, "c": 200}


@pytest.mark.parametrize(
    ("permits", "lanes"), [(2, LANES), (3, [AUTH, CHAT, REST])], ids=["more reserved than there are", "a lane without any"]
)
def test_lanes_that_cannot_be_served_are_a_mistake(permits: int, lanes: Sequence[Lane]) -> None:
    with pytest.raises(AssertionError):
        Lines(permits, lanes)


def check(lines: Lines) -> None:
    """Nobody waits who could be admitted; nothing is beyond its bound."""
    in_use, waiting = lines.in_use, lines.waiting
    shared = PERMITS - sum(lane.reserved for lane in LANES)
    shared_in_use = sum(max(0, in_use[lane.name] - lane.reserved) for lane in LANES)
    assert shared_in_use <= shared
    assert sum(in_use.values()) <= PERMITS
    for lane in LANES:
        assert waiting[lane.name] <= lane.waiting_max
        if waiting[lane.name]:
            assert in_use[lane.name] >= lane.reserved
            assert shared_in_use == shared


@given(st.lists(st.tuples(st.sampled_from([lane.name for lane in LANES]), st.integers(0, 20)), max_size=80))
def test_whatever_comes_and_goes_permits_are_neither_lost_nor_made(steps: list[tuple[str, int]]) -> None:
    """Each step: somebody enters, or the caller of that number leaves, admitted or not."""
    lines = Lines(PERMITS, LANES)
    there: list[Caller] = []
    for lane, number in steps:
        if number < len(there):
            gone = there.pop(number)
            was_admitted = gone.is_admitted
            waiting_before = [caller for caller in there if not caller.is_admitted]
            admitted = lines.leave(gone)
            assert len(admitted) <= 1
            assert was_admitted or not admitted
            for caller in admitted:
                assert caller is next(one for one in waiting_before if one.lane == caller.lane), "in order"
        elif (newcomer := lines.enter(lane)) is not None:
            there.append(newcomer)
        check(lines)
        assert sum(lines.in_use.values()) == sum(caller.is_admitted for caller in there)
        assert sum(lines.waiting.values()) == sum(not caller.is_admitted for caller in there)
    while there:
        lines.leave(there.pop())
    assert not any(lines.in_use.values())
    assert not any(lines.waiting.values())
    assert all(
        caller.is_admitted for caller in [*entered(lines, "rest", 2), *entered(lines, "auth", 1), *entered(lines, "chat", 2)]
    )


# -- the shell


def one_permit(*, waiting_max: int = 5) -> Bulkhead:
    return Bulkhead("sql", 1, [Lane("chat", 0, waiting_max, wait_s=1.0)], code="DB_POOL_EXHAUSTED")


@pytest.mark.anyio
async def test_calls_pass_their_results_and_errors_and_give_their_permits_back() -> None:
    pool = one_permit()
    assert await pool(answering(7), lane="chat") == 7
    with pytest.raises(KeyError):
        await pool(answering(KeyError("a bug")), lane="chat")
    assert pool.lines.in_use == {"chat": 0}


@pytest.mark.anyio
async def test_behind_a_full_line_the_refusal_comes_at_once() -> None:
    pool = one_permit(waiting_max=0)

    async def inside() -> None:
        refusal = refused_at_once(pool(answering(1), lane="chat"), Overloaded)
        assert (refusal.word, refusal.retry_after_s, refusal.details) == ("DB_POOL_EXHAUSTED", 1.0, {"dependency": "sql"})
        await anyio.lowlevel.checkpoint()

    await pool(inside, lane="chat")
    assert pool.lines.full_total == 1


@pytest.mark.anyio
async def test_who_waits_is_served_in_order() -> None:
    pool, served, gate = one_permit(), list[int](), anyio.Event()

    async def work(number: int) -> None:
        served.append(number)
        await gate.wait()

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(partial(pool, partial(work, number), lane="chat"))
            await anyio.wait_all_tasks_blocked()
        assert served == [0]
        gate.set()
    assert served == [0, 1, 2, 3]
    assert pool.lines.in_use == {"chat": 0}


async def test_a_turn_that_does_not_come_is_given_up_after_the_lanes_own_wait(autojump_clock: MockClock) -> None:
    lanes = [Lane("chat", 0, 5, wait_s=1.0), Lane("background", 0, 5, wait_s=5.0)]
    pool, given_up = Bulkhead("sql", 1, lanes), dict[str, float]()

    async def wait(lane: str) -> None:
        with pytest.raises(Overloaded):
            await pool(answering(1), lane=lane)
        given_up[lane] = trio.current_time() - began_s

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(pool, partial(trio.sleep, 60), lane="chat"))
        await wait_all_tasks_blocked()
        for lane in ("chat", "background"):
            nursery.start_soon(wait, lane)
    assert given_up == {"chat": 1.0, "background": 5.0}
    assert pool.gave_up_total == 2
    assert (pool.lines.in_use, pool.lines.waiting) == ({"chat": 0, "background": 0}, {"chat": 0, "background": 0})


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["in the call", "in the line", "as the turn comes"])
async def test_a_caller_who_is_cancelled_gives_everything_back(when: str) -> None:
    pool, gate = one_permit(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as caller:

            async def hold() -> None:
                if when == "in the call":
                    caller.cancel()
                await gate.wait()

            async def wait() -> None:
                with caller:
                    await pool(anyio.sleep_forever, lane="chat")

            if when == "in the call":
                await pool(hold, lane="chat")
        if when != "in the call":
            caller = anyio.CancelScope()
            tasks.start_soon(partial(pool, hold, lane="chat"))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert pool.lines.waiting == {"chat": 1}
            if when == "as the turn comes":
                (waiting,) = pool.lines._lanes["chat"].waiting
                gate.set()
                while not waiting.is_admitted:
                    await anyio.lowlevel.checkpoint()
            caller.cancel()
            await anyio.wait_all_tasks_blocked()
            gate.set()
    assert (pool.lines.in_use, pool.lines.waiting) == ({"chat": 0}, {"chat": 0})
    assert await pool(answering(1), lane="chat") == 1
