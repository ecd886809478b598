"""A bound on a call's time."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
import trio
from tests.resilience.kit import answering
from trio.testing import MockClock

from secureconnect.errors import DeadlineExceeded
from secureconnect.resilience import Deadline, OutOfTime


@pytest.mark.anyio
async def test_what_comes_in_time_is_passed_on() -> None:
    deadline = Deadline(5, "sql")
    assert await deadline(answering(7)) == 7
    with pytest.raises(KeyError):
        await deadline(answering(KeyError("a bug")))
    assert deadline.expired_total == 0


async def test_a_call_that_hangs_is_left_at_the_deadline_and_names_what_hung(autojump_clock: MockClock) -> None:
    deadline, began_s = Deadline(1.5, "sql"), trio.current_time()
    with pytest.raises(DeadlineExceeded) as refused:
        await deadline(trio.sleep_forever)
    assert trio.current_time() - began_s == 1.5
    assert refused.value.details == {"dependency": "sql"}
    assert deadline.expired_total == 1


@pytest.mark.anyio
async def test_the_end_of_the_callers_own_time_is_no_expiry() -> None:
    deadline = Deadline(60, "sql")
    with anyio.CancelScope() as caller:

        async def hang() -> None:
            caller.cancel()
            await anyio.sleep_forever()

        await deadline(hang)
    assert caller.cancelled_caught
    assert deadline.expired_total == 0


async def test_a_result_of_the_last_moment_is_kept(autojump_clock: MockClock) -> None:
    async def late() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "done"

    assert await Deadline(1, "sql")(late) == "done"


async def test_the_earlier_of_two_ends_counts_and_says_which_it_was(autojump_clock: MockClock) -> None:
    deadline, began_s = Deadline(1.5, "sql"), trio.current_time()
    with pytest.raises(OutOfTime):
        await deadline(trio.sleep_forever, until_s=began_s + 1.0)
    assert trio.current_time() - began_s == 1.0
    with pytest.raises(DeadlineExceeded) as expired:
        await deadline(trio.sleep_forever, until_s=began_s + 2.5)
    assert type(expired.value) is DeadlineExceeded
    assert trio.current_time() - began_s == 2.5
    assert (deadline.expired_total, deadline.cut_short_total) == (1, 1)
