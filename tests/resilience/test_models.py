"""Breaker, retry and bulkhead against models that say the same more simply, with any history and any time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from secureconnect.errors import BackendDown, BreakerOpen, DeadlineExceeded, OutcomeUnknown, Overloaded, StorageFull, Unavailable
from secureconnect.resilience import BreakerLimits, Budget, Caller, Circuit, Contention, Lane, Lines, RetryLimits, Tries

ANY = st.integers(0, 1_000)
"""Which of those that are there."""


class BreakerMachine(RuleBasedStateMachine):
    """Calls and probes begin and end in any order. The model keeps every call. Moments are whole seconds, as the window's
    parts."""

    LIMITS = BreakerLimits(failures_max=3, calls_min=6)

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(self.LIMITS)
        self.now_s = 0
        self.state, self.since_s, self.opened, self.refused, self.era = "closed", 0, 0, 0, 0
        self.calls: list[tuple[int, bool]] = []
        self.probes_failed = self.newest_probe = 0
        self.under_way: list[tuple[int, int]] = []
        self.probing: list[tuple[tuple[int, int], int, int]] = []

    @rule(seconds=st.integers(0, 14))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(count=st.integers(1, 6))
    def calls_come(self, count: int) -> None:
        for _ in range(count):
            ticket = self.circuit.admit()
            assert (ticket is not None) == (self.state == "closed")
            if ticket is None:
                self.refused += 1
            else:
                self.under_way.append((ticket, self.era))

    @rule(which=ANY, count=st.integers(1, 6), ok=st.booleans())
    def calls_end(self, which: int, count: int, ok: bool) -> None:
        for _ in range(min(count, len(self.under_way))):
            ticket, era = self.under_way.pop(which % len(self.under_way))
            (self.circuit.succeeded if ok else self.circuit.failed)(ticket, self.now_s)
            if era == self.era:
                self.calls.append((self.now_s, ok))
                if not ok and self._is_bad():
                    self._begin("open")

    @precondition(lambda self: self.under_way)
    @rule(which=ANY)
    def a_caller_leaves(self, which: int) -> None:
        """And brings no ticket back."""
        self.under_way.pop(which % len(self.under_way))

    @rule()
    def a_probe_begins(self) -> None:
        self.newest_probe += 1
        self.probing.append((self.circuit.begin_probe(), self.era, self.newest_probe))
        if self.state == "open":
            self.state = "half_open"

    @precondition(lambda self: self.probing)
    @rule(which=ANY, ok=st.booleans())
    def a_probe_ends(self, which: int, ok: bool) -> None:
        ticket, era, number = self.probing.pop(which % len(self.probing))
        self.circuit.probed(ticket, self.now_s, ok=ok)
        if era != self.era or number != self.newest_probe:
            return
        if self.state != "closed":
            if ok:
                self._begin("closed")
            else:
                self.state = "open"
            return
        self.probes_failed = 0 if ok else self.probes_failed + 1
        if self.probes_failed == self.LIMITS.probe_failures_max:
            self._begin("open")

    @rule()
    def it_heals(self) -> None:
        self.a_probe_begins()
        self.a_probe_ends(len(self.probing) - 1, ok=True)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        circuit = self.circuit
        assert (circuit.state, circuit.since_s) == (self.state, self.since_s)
        assert (circuit.opened_total, circuit.refused_total) == (self.opened, self.refused)

    def _is_bad(self) -> bool:
        limits = self.LIMITS
        row = [ok for _, ok in self.calls[-limits.failures_max :]]
        recent = [ok for at_s, ok in self.calls if self.now_s - at_s <= limits.window_s + 1]
        in_a_row = len(row) == limits.failures_max and not any(row)
        return in_a_row or (len(recent) >= limits.calls_min and recent.count(False) >= limits.failure_share * len(recent))

    def _begin(self, state: str) -> None:
        self.state, self.since_s = state, self.now_s
        self.opened += state == "open"
        self.era += 1
        self.calls, self.probes_failed = [], 0


@dataclass(eq=False)
class Call:
    """One call of the retry's machine, and what its model knows of it."""

    tries: Tries
    is_repeatable: bool
    due_s: float
    retries: int = 0
    reruns: int = 0
    unknown: Unavailable | None = None


class RetryMachine(RuleBasedStateMachine):
    """Many calls with a budget between them. The model counts the budget in whole tenths of a retry."""

    LIMITS = RetryLimits()
    RESERVE = 2

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(share=0.1, reserve=self.RESERVE)
        self.tenths = 10 * self.RESERVE
        self.successes = self.spent = 0
        self.now_s = 0.0
        self.calls: list[Call] = []

    @rule(is_repeatable=st.booleans(), left_s=st.one_of(st.just(inf), st.floats(0, 3)))
    def a_call_begins(self, is_repeatable: bool, left_s: float) -> None:
        tries = Tries(self.LIMITS, self.budget, is_repeatable=is_repeatable)
        self.calls.append(Call(tries, is_repeatable, self.now_s + left_s))

    @rule(count=st.integers(1, 25))
    def calls_succeed(self, count: int) -> None:
        for _ in range(count):
            self.budget.earn()
        self.successes += count
        self.tenths = min(10 * self.RESERVE, self.tenths + count)

    @precondition(lambda self: self.calls)
    @rule(
        which=ANY,
        count=st.integers(1, 10),
        error=st.sampled_from(
            [
                BackendDown("sql"),
                DeadlineExceeded(),
                OutcomeUnknown(),
                StorageFull("sql"),
                BreakerOpen(),
                Overloaded(),
                Contention(),
            ]
        ),
        random=st.sampled_from([0.0, 0.25, 0.999]),
        took_s=st.sampled_from([0.0, 0.3, 1.5]),
    )
    def tries_fail(self, which: int, count: int, error: Unavailable, random: float, took_s: float) -> None:
        """The same call so often, if it goes on."""
        call = self.calls[which % len(self.calls)]
        for _ in range(count):
            if call in self.calls:
                self._fail(call, error, random, took_s)

    def _fail(self, call: Call, error: Unavailable, random: float, took_s: float) -> None:
        self.now_s += took_s
        left_s = call.due_s - self.now_s
        call.unknown = error if isinstance(error, OutcomeUnknown) else call.unknown
        pause_s = call.tries.pause_s(error, random=random, left_s=left_s)
        assert pause_s == self._expected(call, error, random, left_s)
        if pause_s is None:
            assert call.tries.verdict(error) is (call.unknown or error)
            self.calls.remove(call)
        else:
            assert self.now_s + pause_s < call.due_s, "it ends before the caller's time does"

    @invariant()
    def the_budget_is_as_the_model_says(self) -> None:
        assert self.budget.spent_total == self.spent <= self.RESERVE + self.successes / 10
        for call in self.calls:
            assert (call.tries.retries, call.tries.reruns) == (call.retries, call.reruns)
            assert call.retries <= self.LIMITS.retries_max
            assert call.reruns <= self.LIMITS.reruns_max

    def _expected(self, call: Call, error: Unavailable, random: float, left_s: float) -> float | None:
        if isinstance(error, Contention):
            pause_s: float = random * min(0.1, 0.005 * 2**call.reruns)
            if call.reruns == 8 or pause_s >= left_s:
                return None
            call.reruns += 1
            return pause_s
        pause_s = random * min(1.0, 0.05 * 2**call.retries)
        helps = type(error) in (BackendDown, DeadlineExceeded, OutcomeUnknown)
        if not (helps and call.is_repeatable) or call.retries == 3 or pause_s >= left_s or self.tenths < 10:
            return None
        self.tenths -= 10
        self.spent += 1
        call.retries += 1
        return pause_s


@dataclass(eq=False)
class Queue:
    """A lane as the model sees it."""

    lane: Lane
    inside: list[Caller] = field(default_factory=list)
    outside: list[tuple[Caller, float]] = field(default_factory=list)
    """Who waits, and until when."""

    @property
    def of_shared(self) -> int:
        return max(0, len(self.inside) - self.lane.reserved)


class BulkheadMachine(RuleBasedStateMachine):
    """Callers enter, leave, and give up when their lane's wait is over."""

    LANES = (Lane("auth", 1, 2, 1.0), Lane("chat", 2, 3, 1.0), Lane("background", 0, 6, 5.0), Lane("rest", 0, 1, 0.5))

    @initialize(shared=st.integers(1, 4))
    def opens(self, shared: int) -> None:
        self.shared = shared
        self.lines = Lines(3 + shared, self.LANES)
        self.queues = {lane.name: Queue(lane) for lane in self.LANES}
        self.last = len(self.LANES) - 1  # the lane that a shared permit went to last
        self.now_s, self.full = 0.0, 0

    @rule(lane=st.sampled_from([lane.name for lane in LANES]), count=st.integers(1, 4))
    def callers_enter(self, lane: str, count: int) -> None:
        for _ in range(count):
            queue, caller = self.queues[lane], self.lines.enter(lane)
            if len(queue.inside) < queue.lane.reserved or self._shared_in_use() < self.shared:
                assert caller is not None
                assert caller.is_admitted
                queue.inside.append(caller)
            elif len(queue.outside) < queue.lane.waiting_max:
                assert caller is not None
                assert not caller.is_admitted
                queue.outside.append((caller, self.now_s + queue.lane.wait_s))
            else:
                assert caller is None
                self.full += 1

    @rule(lane=st.sampled_from([lane.name for lane in LANES]), which=ANY)
    def a_call_ends(self, lane: str, which: int) -> None:
        queue = self.queues[lane]
        if queue.inside:
            was_shared = queue.of_shared > 0
            caller = queue.inside.pop(which % len(queue.inside))
            assert self.lines.leave(caller) == tuple(self._next(queue, was_shared))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        for queue in self.queues.values():
            for caller, due_s in list(queue.outside):
                if due_s <= self.now_s:
                    self._gives_up(queue, caller, due_s)

    @rule(lane=st.sampled_from([lane.name for lane in LANES]), which=ANY)
    def a_waiting_caller_is_cancelled(self, lane: str, which: int) -> None:
        queue = self.queues[lane]
        if queue.outside:
            self._gives_up(queue, *queue.outside[which % len(queue.outside)])

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert self.lines.in_use == {name: len(queue.inside) for name, queue in self.queues.items()}
        assert self.lines.waiting == {name: len(queue.outside) for name, queue in self.queues.items()}
        assert self.lines.full_total == self.full
        assert self._shared_in_use() <= self.shared
        for queue in self.queues.values():
            assert all(caller.is_admitted for caller in queue.inside)
            assert not any(caller.is_admitted for caller, _ in queue.outside)
            if queue.outside:
                assert len(queue.inside) >= queue.lane.reserved, "nobody waits who could be admitted"
                assert self._shared_in_use() == self.shared, "nor while a shared permit is free"

    def _gives_up(self, queue: Queue, caller: Caller, due_s: float) -> None:
        queue.outside.remove((caller, due_s))
        assert self.lines.leave(caller) == ()

    def _shared_in_use(self) -> int:
        return sum(queue.of_shared for queue in self.queues.values())

    def _next(self, queue: Queue, was_shared: bool) -> list[Caller]:
        """Who must come next: of the same lane where the permit is its own, else of the next lane in turn that has somebody."""
        queues, last = list(self.queues.values()), self.last
        candidates = [(last + n) % len(queues) for n in range(1, len(queues) + 1)] if was_shared else [queues.index(queue)]
        for place in candidates:
            if queues[place].outside:
                caller, _ = queues[place].outside.pop(0)
                queues[place].inside.append(caller)
                self.last = place if was_shared else last
                return [caller]
        return []


TestBreaker, TestRetry, TestBulkhead = BreakerMachine.TestCase, RetryMachine.TestCase, BulkheadMachine.TestCase
TestBreaker.settings = TestRetry.settings = TestBulkhead.settings = settings(max_examples=100, stateful_step_count=60)
