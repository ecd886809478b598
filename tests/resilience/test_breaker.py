"""When calls are refused, and what ends that."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.resilience.kit import answering, refused_at_once
from trio.testing import MockClock

from secureconnect.errors import (
    BackendDown,
    BreakerOpen,
    Conflict,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    SecureConnectError,
    StorageFull,
)
from secureconnect.resilience import Breaker, BreakerLimits, Circuit, Contention, OutOfTime

LIMITS = BreakerLimits()


def call(circuit: Circuit, now_s: float, *, ok: bool) -> None:
    ticket = circuit.admit()
    assert ticket is not None
    (circuit.succeeded if ok else circuit.failed)(ticket, now_s)


def opened(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(LIMITS.failures_max):
        call(circuit, now_s, ok=False)
    assert state(circuit) == "open"
    return circuit


def half_open() -> Circuit:
    circuit = opened()
    circuit.begin_probe()
    return circuit


BEGINNINGS: dict[str, Callable[[], Circuit]] = {"closed": Circuit, "open": opened, "half_open": half_open}


def state(circuit: Circuit) -> str:
    """As text, so that the type checker does not believe it from one line to the next."""
    return circuit.state


def one_failure(circuit: Circuit) -> None:
    call(circuit, 1.0, ok=False)


def many_failures(circuit: Circuit) -> None:
    for _ in range(LIMITS.failures_max):
        call(circuit, 1.0, ok=False)


def many_successes(circuit: Circuit) -> None:
    for _ in range(100):
        call(circuit, 1.0, ok=True)


def half_of_many(circuit: Circuit) -> None:
    for number in range(LIMITS.calls_min):
        call(circuit, 1.0, ok=number % 2 == 0)


def probe(circuit: Circuit, *outcomes: bool) -> None:
    for ok in outcomes:
        circuit.probed(circuit.begin_probe(), 1.0, ok=ok)


TRANSITIONS: list[tuple[str, Callable[[Circuit], object], str]] = [
    ("closed", one_failure, "closed"),
    ("closed", many_failures, "open"),
    ("closed", half_of_many, "open"),
    ("closed", many_successes, "closed"),
    ("closed", lambda circuit: circuit.begin_probe(), "closed"),
    ("closed", lambda circuit: probe(circuit, True), "closed"),
    ("closed", lambda circuit: probe(circuit, False), "closed"),
    ("closed", lambda circuit: probe(circuit, False, False), "open"),
    ("closed", lambda circuit: probe(circuit, False, True, False), "closed"),
    ("open", lambda circuit: circuit.admit(), "open"),
    ("open", lambda circuit: circuit.begin_probe(), "half_open"),
    ("open", lambda circuit: probe(circuit, True), "closed"),
    ("open", lambda circuit: probe(circuit, False), "open"),
    ("half_open", lambda circuit: circuit.admit(), "half_open"),
    ("half_open", lambda circuit: circuit.begin_probe(), "half_open"),
    ("half_open", lambda circuit: probe(circuit, True), "closed"),
    ("half_open", lambda circuit: probe(circuit, False), "open"),
]


@pytest.mark.parametrize(("before", "deed", "after"), TRANSITIONS)
def test_every_transition(before: str, deed: Callable[[Circuit], object], after: str) -> None:
    circuit = BEGINNINGS[before]()
    assert state(circuit) == before
    deed(circuit)
    assert state(circuit) == after
    assert (circuit.admit() is not None) == (after == "closed")


def test_a_success_ends_a_row_of_failures() -> None:
    circuit = Circuit()
    for ok in (False, False, False, False, True, False, False, False, False):
        call(circuit, 0.0, ok=ok)
    assert state(circuit) == "closed"


def test_a_share_of_failures_counts_only_among_enough_calls_of_the_window() -> None:
    circuit = Circuit()
    for number in range(LIMITS.calls_min - 1):
        call(circuit, 0.0, ok=number % 2 == 0)
    assert state(circuit) == "closed"
    call(circuit, 12.0, ok=False)  # the others are forgotten
    assert state(circuit) == "closed"
    call(circuit, 12.0, ok=True)
    for number in range(LIMITS.calls_min - 2):
        call(circuit, 21.0, ok=number % 2 == 0)
    assert state(circuit) == "open"


def test_a_canary_closes_only_what_was_open_when_it_began() -> None:
    circuit = Circuit()
    early = circuit.begin_probe()
    many_failures(circuit)
    circuit.probed(early, 2.0, ok=True)
    assert state(circuit) == "open"
    first = circuit.begin_probe()
    second = circuit.begin_probe()
    circuit.probed(first, 3.0, ok=True)
    assert state(circuit) == "half_open", "the newest canary is the one that counts"
    circuit.probed(second, 3.0, ok=True)
    assert state(circuit) == "closed"
    circuit.probed(second, 3.0, ok=False)
    circuit.probed(second, 3.0, ok=False)
    assert state(circuit) == "closed"


def test_calls_that_hang_since_before_the_outage_do_not_open_it_after_the_heal() -> None:
    circuit = Circuit()
    old = [circuit.admit() for _ in range(10)]
    many_failures(circuit)
    probe(circuit, True)
    for ticket in old:
        assert ticket is not None
        circuit.failed(ticket, 5.0)
    assert (state(circuit), circuit.opened_total) == ("closed", 1)
    for ticket in old:
        assert ticket is not None
        circuit.succeeded(ticket, 5.0)
    for _ in range(LIMITS.failures_max):
        call(circuit, 6.0, ok=False)
    assert state(circuit) == "open", "nor does their success count"


def test_it_says_since_when_and_counts() -> None:
    circuit = opened(3.0)
    assert (circuit.since_s, circuit.opened_total) == (3.0, 1)
    assert circuit.admit() is None
    assert circuit.admit() is None
    assert circuit.refused_total == 2
    circuit.probed(circuit.begin_probe(), 4.0, ok=False)
    assert (circuit.since_s, circuit.opened_total) == (3.0, 1), "a canary that fails is no new outage"
    circuit.probed(circuit.begin_probe(), 5.0, ok=True)
    assert circuit.since_s == 5.0


class Naive:
    """The rule as failure-policy says it, with every call kept; moments are whole seconds, so the window's parts are exact."""

    def __init__(self) -> None:
        self.is_open = False
        self.calls: list[tuple[int, bool]] = []

    def call(self, now_s: int, *, ok: bool) -> None:
        self.calls.append((now_s, ok))
        recent = [good for at_s, good in self.calls if now_s - at_s <= LIMITS.window_s + 1]
        row = [good for _, good in self.calls[-LIMITS.failures_max :]]
        in_a_row = len(row) == LIMITS.failures_max and not any(row)
        self.is_open = not ok and (in_a_row or (len(recent) >= LIMITS.calls_min and recent.count(False) * 2 >= len(recent)))

    def heal(self) -> None:
        self.__init__()  # type: ignore[misc]


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=120))
def test_it_opens_exactly_when_the_rule_says(steps: list[tuple[int, bool]]) -> None:
    circuit, naive, now_s = Circuit(), Naive(), 0
    for gap_s, ok in steps:
        now_s += gap_s if gap_s > 4 else 0
        naive.call(now_s, ok=ok)
        call(circuit, now_s, ok=ok)
        assert (state(circuit) == "open") == naive.is_open
        if naive.is_open:
            probe(circuit, True)
            naive.heal()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [BackendDown("sql"), DeadlineExceeded(), OutcomeUnknown()])
async def test_failures_open_it_and_then_nobody_asks(error: SecureConnectError) -> None:
    breaker = Breaker("sql")
    for _ in range(LIMITS.failures_max):
        with pytest.raises(type(error)):
            await breaker(answering(error))
    refusal = refused_at_once(breaker(answering("never asked")), BreakerOpen)
    assert (refusal.details, refusal.status, refusal.retry_after_s) == ({"dependency": "sql"}, 503, 1.0)
    with pytest.raises(BreakerOpen):
        breaker.check()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [Conflict(), StorageFull("sql"), Contention()])
async def test_a_refusal_is_an_answer(error: SecureConnectError) -> None:
    breaker = Breaker("sql")
    for answer in [BackendDown("sql")] * 4 + [error] + [BackendDown("sql")] * 4:
        with pytest.raises(type(answer)):
            await breaker(answering(answer))
    breaker.check()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [Overloaded(), OutOfTime(), KeyError("a bug")])
async def test_what_says_nothing_of_the_dependency_is_not_counted(error: Exception) -> None:
    breaker = Breaker("sql")
    for answer in [BackendDown("sql")] * 4 + [error] * 9:
        with pytest.raises(type(answer)):
            await breaker(answering(answer))
    breaker.check()
    with pytest.raises(BackendDown):
        await breaker(answering(BackendDown("sql")))
    with pytest.raises(BreakerOpen):
        breaker.check()


@pytest.mark.anyio
async def test_callers_who_leave_are_not_counted() -> None:
    breaker = Breaker("sql")
    for _ in range(30):
        with anyio.CancelScope() as caller:

            async def hang(caller: anyio.CancelScope = caller) -> None:
                caller.cancel()
                await anyio.sleep_forever()

            await breaker(hang)
        assert caller.cancelled_caught
    breaker.check()


@pytest.mark.anyio
async def test_the_probers_probe_is_the_canary_and_users_wait_for_its_answer() -> None:
    breaker = Breaker("sql", BreakerLimits(failures_max=1))
    with pytest.raises(BackendDown):
        await breaker(answering(BackendDown("sql")))

    async def write() -> None:
        await anyio.lowlevel.checkpoint()
        assert breaker.circuit.state == "half_open"
        refused_at_once(breaker(answering(1)), BreakerOpen)

    await breaker.probe(write)
    assert await breaker(answering(1)) == 1


@pytest.mark.anyio
async def test_a_probe_that_is_cut_off_has_failed() -> None:
    """The prober's own deadline is an outside cancellation here, and the very sign that the dependency hangs."""
    breaker = Breaker("sql")
    for _ in range(2):
        with anyio.CancelScope() as prober:

            async def hang(prober: anyio.CancelScope = prober) -> None:
                prober.cancel()
                await anyio.sleep_forever()

            await breaker.probe(hang)
        assert prober.cancelled_caught
    assert breaker.circuit.state == "open"


@given(st.floats(0, 1, exclude_max=True))
def test_canaries_come_every_half_to_whole_second_with_jitter(random: float) -> None:
    breaker = Breaker("sql", BreakerLimits(failures_max=1))
    assert breaker.pause_s(random) == 1.0
    ticket = breaker.circuit.admit()
    assert ticket is not None
    breaker.circuit.failed(ticket, 0.0)
    assert 0.5 <= breaker.pause_s(random) <= 1.0
    assert breaker.pause_s(random) == 0.5 + random / 2


async def test_times_are_of_the_event_loop(autojump_clock: MockClock) -> None:
    breaker = Breaker("sql", BreakerLimits(failures_max=1))
    await trio.sleep(7)
    with pytest.raises(BackendDown):
        await breaker(answering(BackendDown("sql")))
    assert breaker.circuit.since_s == trio.current_time()
