"""All layers together: what a caller sees of a dependency that hangs, fails, comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.resilience.kit import answering, refused_at_once
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.config import Settings
from secureconnect.errors import (
    BackendDown,
    BreakerOpen,
    Conflict,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    SecureConnectError,
    Unavailable,
)
from secureconnect.observe.metrics import FIGURES, Metrics
from secureconnect.resilience import BLOBS, CASSANDRA, REDIS, SQL, BreakerLimits, Contention, Lane, Policy, Stack, figures

POLICY = Policy(
    "sql", total_s=5.0, attempt_s=1.5, permits=2, lanes=(Lane("chat", 0, 3, wait_s=1.0),), full_code="DB_POOL_EXHAUSTED"
)
PATIENT = replace(POLICY, breaker=BreakerLimits(failures_max=1_000, calls_min=100_000))
"""With a breaker that stays closed."""


def stack(policy: Policy = POLICY) -> Stack:
    return Stack(policy, random=lambda: 0.0)


def read(stack: Stack, call: Callable[[], Awaitable[object]]) -> Awaitable[object]:
    return stack(call, lane="chat", changes=False, is_repeatable=True)


def write(stack: Stack, call: Callable[[], Awaitable[object]], *, is_repeatable: bool = False) -> Awaitable[object]:
    return stack(call, lane="chat", changes=True, is_repeatable=is_repeatable)


def hanging(times: int) -> Callable[[], Awaitable[object]]:
    """Hangs so often, then answers 7."""
    left = times

    async def call() -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return 7

    return call


def idle(stack: Stack) -> bool:
    now = stack.statistics()
    return not any(now.in_use.values()) and not any(now.waiting.values())


@pytest.mark.anyio
async def test_results_and_refusals_pass_unchanged() -> None:
    guarded = stack()
    assert await read(guarded, answering(7)) == 7
    with pytest.raises(Conflict):
        await write(guarded, answering(Conflict()))
    assert await write(guarded, answering(Contention(), 7)) == 7
    assert await read(guarded, answering(BackendDown("sql"), 7)) == 7
    now = guarded.statistics()
    assert (now.retries_total, now.reruns_total, now.breaker) == (1, 1, "closed")
    assert idle(guarded)


async def test_a_try_that_hangs_leaves_time_for_another(autojump_clock: MockClock) -> None:
    guarded, began_s = stack(), trio.current_time()
    assert await read(guarded, hanging(1)) == 7
    assert trio.current_time() - began_s == 1.5
    assert guarded.statistics().expired_total == 1


async def test_all_tries_together_end_at_the_total(autojump_clock: MockClock) -> None:
    guarded, began_s = stack(), trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await read(guarded, hanging(9))
    assert trio.current_time() - began_s == 5.0
    assert (guarded.statistics().expired_total, guarded.statistics().cut_short_total) == (3, 1)


async def test_a_write_without_an_answer_may_have_been_done(autojump_clock: MockClock) -> None:
    guarded, began_s = stack(), trio.current_time()
    with pytest.raises(OutcomeUnknown):
        await write(guarded, hanging(9))
    assert trio.current_time() - began_s == 1.5, "what may not be done twice is not tried again"
    with pytest.raises(OutcomeUnknown):
        await write(guarded, hanging(9), is_repeatable=True)
    assert trio.current_time() - began_s == 6.5
    assert await write(stack(), hanging(1), is_repeatable=True) == 7


async def test_a_write_whose_time_ends_in_its_first_try_may_have_been_done(autojump_clock: MockClock) -> None:
    with pytest.raises(OutcomeUnknown):
        await write(stack(replace(POLICY, attempt_s=5.0)), hanging(9))


async def test_a_write_that_was_never_begun_was_not_done(autojump_clock: MockClock) -> None:
    guarded = stack(replace(PATIENT, permits=1, attempt_s=5.0))
    outcomes = list[str]()

    async def outcome() -> None:
        try:
            await write(guarded, anyio.sleep_forever)
        except Unavailable as error:
            outcomes.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(outcome)
            await wait_all_tasks_blocked()
    assert outcomes == ["Overloaded", "OutcomeUnknown"]


async def test_tries_that_their_callers_time_cuts_short_do_not_open_the_breaker(autojump_clock: MockClock) -> None:
    """A caller who stood in line for most of its time says nothing of the dependency."""
    guarded = stack(replace(POLICY, permits=1, attempt_s=4.0, lanes=(Lane("chat", 0, 30, wait_s=4.0),)))
    outcomes = list[str]()

    async def caller() -> None:
        try:
            await read(guarded, partial(trio.sleep, 1.9))
        except Unavailable as error:
            outcomes.append(type(error).__name__)

    for _ in range(9):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(caller)
    assert outcomes == ["OutOfTime"] * 9
    assert guarded.statistics().breaker == "closed"


@pytest.mark.anyio
async def test_an_open_breaker_refuses_before_anybody_stands_in_line() -> None:
    guarded = stack(replace(POLICY, permits=1, breaker=BreakerLimits(probe_failures_max=1)))

    async def inside() -> None:
        """The only permit is taken, and the next caller would wait for it."""
        with pytest.raises(BackendDown):
            await guarded.breaker.probe(_failing_probe)
        refusal = refused_at_once(guarded(answering(1), lane="chat", changes=False, is_repeatable=True), BreakerOpen)
        assert refusal.details == {"dependency": "sql"}

    await read(guarded, inside)
    assert guarded.statistics().refused_total == 1
    assert idle(guarded)


async def test_a_dependency_that_hangs_opens_the_breaker_with_its_first_attempts(autojump_clock: MockClock) -> None:
    guarded, began_s = stack(replace(POLICY, permits=5)), trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(_expire, guarded)
    assert trio.current_time() - began_s == 1.5
    assert guarded.statistics().breaker == "open"


async def _expire(guarded: Stack) -> None:
    with pytest.raises(OutcomeUnknown):
        await write(guarded, anyio.sleep_forever)


async def _failing_probe() -> None:
    await anyio.lowlevel.checkpoint()
    raise BackendDown("sql")


@pytest.mark.anyio
async def test_a_full_line_refuses_without_waiting_for_anything() -> None:
    guarded = stack(replace(POLICY, permits=1, lanes=(Lane("chat", 0, 0, wait_s=1.0),)))

    async def inside() -> None:
        refusal = refused_at_once(guarded(answering(1), lane="chat", changes=True, is_repeatable=True), Overloaded)
        assert refusal.word == "DB_POOL_EXHAUSTED"
        await anyio.lowlevel.checkpoint()

    await read(guarded, inside)
    assert guarded.statistics().full_total == 1


@pytest.mark.anyio
async def test_a_canary_that_succeeds_lets_everybody_in_again() -> None:
    guarded = stack()
    for _ in range(5):
        with pytest.raises(BackendDown):
            await write(guarded, answering(BackendDown("sql")))
    with pytest.raises(BreakerOpen):
        await read(guarded, answering(7))
    await guarded.breaker.probe(_probe)
    assert await read(guarded, answering(7)) == 7


async def _probe() -> None:
    await anyio.lowlevel.checkpoint()


CALLS = 400
"""Of an outage; the budget's reserve is not more than a tenth of a hundred."""


async def calls_of_an_outage(policy: Policy, fail: Callable[[], Awaitable[object]]) -> int:
    """How often a dependency is asked that fails every time, when `CALLS` calls are made, as many at once as have a permit."""
    guarded, asked, left = stack(policy), 0, iter(range(CALLS))
    lane = policy.lanes[-1].name

    async def ask() -> object:
        nonlocal asked
        asked += 1
        return await fail()

    async def caller() -> None:
        for _ in left:
            with pytest.raises(Unavailable):
                await guarded(ask, lane=lane, changes=False, is_repeatable=True)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(policy.permits, 20)):
            tasks.start_soon(caller)
    assert idle(guarded)
    return asked


def unbroken(policy: Policy) -> Policy:
    """With a breaker that does not help: the budget alone."""
    return replace(policy, breaker=PATIENT.breaker)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [BackendDown("it"), OutcomeUnknown()], ids=["down", "unknown"])
@pytest.mark.parametrize("policy", [SQL, CASSANDRA, REDIS, BLOBS], ids=lambda policy: policy.name)
async def test_an_outage_makes_at_most_a_tenth_more_calls(policy: Policy, error: SecureConnectError) -> None:
    assert CALLS <= await calls_of_an_outage(unbroken(policy), answering(error)) <= 1.1 * CALLS
    assert await calls_of_an_outage(policy, answering(error)) <= policy.breaker.failures_max + 20


@pytest.mark.parametrize("policy", [SQL, CASSANDRA, REDIS, BLOBS], ids=lambda policy: policy.name)
async def test_a_dependency_that_hangs_gets_at_most_a_tenth_more_calls(policy: Policy, autojump_clock: MockClock) -> None:
    assert CALLS <= await calls_of_an_outage(unbroken(policy), anyio.sleep_forever) <= 1.1 * CALLS
    assert await calls_of_an_outage(policy, anyio.sleep_forever) <= policy.breaker.failures_max + 20


async def test_two_hundred_callers_of_a_frozen_dependency_are_free_in_time_and_leave_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    guarded, took_s = stack(replace(SQL)), list[float]()

    async def caller(lane: str) -> None:
        began_s = trio.current_time()
        with pytest.raises(Unavailable):
            await guarded(trio.sleep_forever, lane=lane, changes=True, is_repeatable=True)
        took_s.append(trio.current_time() - began_s)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(caller, ("auth", "chat", "background")[number % 3])
    assert max(took_s) <= 5.0
    assert idle(guarded)
    assert guarded.statistics().breaker == "open"


@given(seed=st.integers(0, 2**32))
@hypothesis_settings(max_examples=25)
def test_callers_who_are_cancelled_at_any_moment_lose_no_permit(seed: int) -> None:
    random = Random(seed)
    guarded = Stack(PATIENT, random=random.random)

    async def call() -> None:
        await trio.sleep(random.random() * 2)
        if random.random() < 0.3:
            raise random.choice([BackendDown("sql"), Contention(), Conflict(), OutcomeUnknown()])

    async def caller() -> None:
        await trio.sleep(random.random() * 5)
        with trio.move_on_after(random.random() * 3):
            try:
                await guarded(call, lane="chat", changes=random.random() < 0.5, is_repeatable=random.random() < 0.5)
            except (Unavailable, Conflict):
                return

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(caller)
        assert idle(guarded)
        for _ in range(POLICY.permits):
            assert await read(guarded, answering(7)) == 7

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_every_figure_is_known_and_read() -> None:
    metrics = Metrics(process=False)
    for name, value in figures({"sql": stack(), "redis": stack(REDIS)}).items():
        assert FIGURES[name].label == "dependency"
        metrics.watch(name, value)
    page = metrics.render().decode()
    assert 'secureconnect_breaker_state{dependency="sql"} 0.0' in page
    assert 'secureconnect_retries_total{dependency="redis"} 0.0' in page


@pytest.mark.parametrize("policy", [SQL, CASSANDRA, REDIS, BLOBS], ids=lambda policy: policy.name)
def test_the_numbers_of_each_technology_fit_together(policy: Policy) -> None:
    guarded = stack(policy)
    assert guarded.statistics().breaker == "closed"
    assert policy.attempt_s < policy.total_s
    assert all(lane.wait_s <= policy.total_s for lane in policy.lanes)


def test_the_numbers_are_those_of_the_settings() -> None:
    settings = Settings()
    assert (SQL.total_s, SQL.attempt_s) == (settings.store_deadline_s, settings.store_attempt_deadline_s)
    assert (REDIS.total_s, REDIS.attempt_s) == (settings.redis_deadline_s, settings.redis_attempt_deadline_s)
    assert (SQL.permits, sum(lane.waiting_max for lane in SQL.lanes)) == (settings.sql_pool_max, settings.sql_waiting_max)
    waits = {lane.name: lane.wait_s for lane in SQL.lanes}
    assert (waits["chat"], waits["background"]) == (settings.sql_wait_s, settings.sql_background_wait_s)
    assert (SQL.retry.retries_max, SQL.retry.reruns_max) == (settings.retries_max, settings.serialization_retries_max)
    assert SQL.retry_share * 100 == settings.retry_budget_percent
    breaker = SQL.breaker
    assert (breaker.failures_max, breaker.calls_min) == (settings.breaker_failures_max, settings.breaker_calls_min)
    assert (breaker.failure_share * 100, breaker.window_s) == (settings.breaker_failure_percent, settings.breaker_window_s)


async def test_waiting_callers_are_served_when_the_first_are_done(autojump_clock: MockClock) -> None:
    guarded, done = stack(), list[float]()

    async def caller() -> None:
        await read(guarded, partial(trio.sleep, 0.4))
        done.append(round(trio.current_time() - began_s, 3))

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(caller)
    assert done == [0.4, 0.4, 0.8, 0.8, 1.2]


@pytest.mark.anyio
async def test_a_storm_of_lost_serializations_is_run_again_eight_times_a_call_outside_budget_and_breaker() -> None:
    guarded, asked = stack(replace(SQL, retry_share=0.0)), 0

    async def lose() -> None:
        nonlocal asked
        asked += 1
        await anyio.lowlevel.checkpoint()
        raise Contention("40001")

    for _ in range(30):
        with pytest.raises(Contention):
            await guarded(lose, lane="chat", changes=True, is_repeatable=False)
    now = guarded.statistics()
    assert asked == 30 * (1 + SQL.retry.reruns_max) == 30 * 9
    assert (now.breaker, now.retries_total, now.retries_refused_total, now.opened_total) == ("closed", 0, 0, 0)


@pytest.mark.anyio
async def test_a_chat_lane_that_is_full_to_its_last_place_starves_nobody_and_refuses_at_once() -> None:
    """With the numbers of a node: 25 connections, 100 places in line."""
    guarded, gate = stack(SQL), anyio.Event()

    def call(lane: str, what: Callable[[], Awaitable[object]]) -> Coroutine[Any, Any, object]:
        return guarded(what, lane=lane, changes=False, is_repeatable=True)

    async with anyio.create_task_group() as tasks:
        for _ in range(19 + 50):  # all but what is reserved for the others; then its line
            tasks.start_soon(call, "chat", gate.wait)
        await anyio.wait_all_tasks_blocked()
        assert guarded.statistics().waiting["chat"] == 50
        refusal = refused_at_once(call("chat", answering(1)), Overloaded)
        assert (refusal.word, refusal.status, refusal.retry_after_s) == ("DB_POOL_EXHAUSTED", 503, 1.0)
        for lane, reserved in (("auth", 4), ("background", 2)):
            for _ in range(reserved - 1):
                tasks.start_soon(call, lane, gate.wait)
            await anyio.wait_all_tasks_blocked()
            assert await call(lane, answering(lane)) == lane
        gate.set()
    assert idle(guarded)
