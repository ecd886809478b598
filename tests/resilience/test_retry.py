"""How often, how soon, out of which budget; and what a call has failed with in the end."""

from __future__ import annotations

from math import inf

import anyio
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.resilience.kit import answering
from trio.testing import MockClock

from secureconnect.errors import (
    BackendDown,
    BreakerOpen,
    Conflict,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    StorageFull,
    Unavailable,
)
from secureconnect.resilience import Budget, Contention, Retry, RetryLimits, Tries, full_jitter_s

LIMITS = RetryLimits()
RANDOM = st.floats(0, 1, exclude_max=True)


def tries(*, is_repeatable: bool = True, budget: Budget | None = None) -> Tries:
    return Tries(LIMITS, budget or Budget(), is_repeatable=is_repeatable)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (BackendDown("sql"), True),
        (DeadlineExceeded(), True),
        (OutcomeUnknown(), True),
        (StorageFull("sql"), False),
        (BreakerOpen(), False),
        (Overloaded(), False),
        (Unavailable(), False),
    ],
)
def test_only_what_a_dependency_caused_is_tried_again_and_only_what_may_be_done_twice(error: Unavailable, *, again: bool) -> None:
    assert (tries().pause_s(error, random=0.5, left_s=inf) is not None) == again
    assert tries(is_repeatable=False).pause_s(error, random=0.5, left_s=inf) is None


def test_it_is_tried_again_three_times_with_pauses_whose_bounds_double() -> None:
    attempt = tries()
    assert [attempt.pause_s(BackendDown("sql"), random=0.5, left_s=inf) for _ in range(4)] == [0.025, 0.05, 0.1, None]


@given(st.integers(1, 10_000), RANDOM)
def test_a_pause_is_a_random_part_of_its_bound(failures: int, random: float) -> None:
    pause_s = full_jitter_s(failures, random, first_s=0.05, longest_s=1.0)
    assert 0 <= pause_s <= min(1.0, 0.05 * 2 ** min(failures - 1, 30))
    assert full_jitter_s(failures, 0.0, first_s=0.05, longest_s=1.0) == 0.0


@given(RANDOM, st.floats(0, 2), st.booleans())
def test_a_pause_that_does_not_end_before_the_deadline_is_not_begun_and_costs_nothing(
    random: float, left_s: float, contended: bool
) -> None:
    budget = Budget()
    error = Contention() if contended else BackendDown("sql")
    pause_s = tries(budget=budget).pause_s(error, random=random, left_s=left_s)
    assert pause_s is None or pause_s < left_s
    assert budget.spent_total == (pause_s is not None and not contended)


@given(st.lists(st.booleans(), max_size=400), st.integers(0, 20))
def test_retries_stay_within_the_reserve_and_a_tenth_of_the_successes(steps: list[bool], reserve: int) -> None:
    """True: a call succeeds; False: one fails and wants a retry."""
    budget, successes, spent = Budget(share=0.1, reserve=reserve), 0, 0
    for succeeds in steps:
        if succeeds:
            budget.earn()
            successes += 1
        else:
            spent += budget.spend()
        assert spent <= reserve + successes / 10 + 1e-6
    assert budget.spent_total == spent
    assert spent + budget.refused_total == steps.count(False)


def test_ten_successes_earn_one_retry_and_no_more_than_the_reserve_is_saved() -> None:
    budget = Budget(share=0.1, reserve=2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    for _ in range(10):
        budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    for _ in range(1_000):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_a_lost_serialization_is_run_again_whatever_the_budget_says() -> None:
    budget = Budget(reserve=0)
    attempt = tries(is_repeatable=False, budget=budget)
    pauses = [attempt.pause_s(Contention(), random=0.5, left_s=inf) for _ in range(LIMITS.reruns_max + 1)]
    assert pauses == [0.0025, 0.005, 0.01, 0.02, 0.04, 0.05, 0.05, 0.05, None]
    assert (budget.spent_total, budget.refused_total) == (0, 0)


ERRORS = st.sampled_from([BackendDown("sql"), DeadlineExceeded(), OutcomeUnknown(), Contention(), BreakerOpen(), Overloaded()])


@given(st.lists(ERRORS, min_size=1, max_size=15), st.booleans())
def test_a_call_that_may_have_been_done_never_fails_with_less_than_that(errors: list[Unavailable], is_repeatable: bool) -> None:
    attempt, made = tries(is_repeatable=is_repeatable), list[Unavailable]()
    for error in errors:
        made.append(error)
        if attempt.pause_s(error, random=0.0, left_s=inf) is None:
            break
    verdict = attempt.verdict(made[-1])
    if any(isinstance(error, OutcomeUnknown) for error in made):
        assert isinstance(verdict, OutcomeUnknown)
    else:
        assert verdict is made[-1]


# -- the shell


def retry(budget: Budget | None = None) -> Retry:
    return Retry(random=lambda: 0.0, budget=budget)


@pytest.mark.anyio
async def test_the_first_result_ends_it() -> None:
    down = BackendDown("sql")
    assert await retry()(answering(down, down, down, 7), is_repeatable=True) == 7
    with pytest.raises(BackendDown):
        await retry()(answering(down, down, down, down, 7), is_repeatable=True)
    with pytest.raises(BackendDown):
        await retry()(answering(down, 7), is_repeatable=False)
    assert await retry()(answering(Contention(), 7), is_repeatable=False) == 7


@pytest.mark.anyio
async def test_what_is_no_trouble_of_the_dependency_passes_at_once() -> None:
    for error in (Conflict(), KeyError("a bug")):
        with pytest.raises(type(error)):
            await retry()(answering(error, 7), is_repeatable=True)


@pytest.mark.anyio
async def test_an_unknown_outcome_is_told_with_the_error_that_ended_it_as_its_cause() -> None:
    first, last = OutcomeUnknown("lost"), BreakerOpen("open")
    with pytest.raises(OutcomeUnknown) as told:
        await retry()(answering(first, last), is_repeatable=True)
    assert told.value is first
    assert told.value.__cause__ is last


@pytest.mark.anyio
async def test_successes_fill_the_budget_and_failures_empty_it() -> None:
    budget = Budget(reserve=1)
    trying = retry(budget)
    assert await trying(answering(BackendDown("sql"), 7), is_repeatable=True) == 7
    with pytest.raises(BackendDown):
        await trying(answering(BackendDown("sql"), 7), is_repeatable=True)
    assert (budget.spent_total, budget.refused_total) == (1, 1)
    for _ in range(9):
        await trying(answering(7), is_repeatable=False)
    assert await trying(answering(BackendDown("sql"), 7), is_repeatable=True) == 7


async def test_it_never_sleeps_past_the_callers_deadline(autojump_clock: MockClock) -> None:
    trying = Retry(RetryLimits(first_s=10, longest_s=10), random=lambda: 0.5)
    began_s = trio.current_time()
    with trio.fail_after(4.9), pytest.raises(BackendDown):
        await trying(answering(BackendDown("sql"), 7), is_repeatable=True)
    assert trio.current_time() == began_s
    with trio.fail_after(5.1):
        assert await trying(answering(BackendDown("sql"), 7), is_repeatable=True) == 7
    assert trio.current_time() - began_s == 5.0
    with pytest.raises(BackendDown):
        await trying(answering(BackendDown("sql"), 7), is_repeatable=True, until_s=trio.current_time() + 5.0)
    assert trio.current_time() - began_s == 5.0


@pytest.mark.anyio
async def test_a_caller_who_leaves_in_a_pause_is_let_go() -> None:
    trying, caller = Retry(RetryLimits(first_s=60, longest_s=60), random=lambda: 0.9), anyio.CancelScope()

    async def ask() -> None:
        with caller:
            await trying(answering(BackendDown("sql")), is_repeatable=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        caller.cancel()
    assert caller.cancelled_caught
