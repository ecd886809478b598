"""What stands around every call of a dependency, and in which order: the one page. Store files know nothing of it.

Each technology has one choke point, its client, and one `Stack` for each direction there, made from a policy below with the
settings' numbers in place of these. The client translates its driver's exceptions inside the stack; above it there are only the
house's own errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import anyio

from secureconnect.errors import BreakerOpen, DeadlineExceeded, OutcomeUnknown

from . import breaker, retry
from .breaker import Breaker
from .bulkhead import Bulkhead, Lane
from .deadline import Deadline
from .errors import OutOfTime
from .retry import Budget, Retry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of one technology. `full_code`: the wire code when all permits are busy."""

    name: str
    total_s: float
    attempt_s: float
    permits: int
    lanes: tuple[Lane, ...]
    full_code: str | None = None
    retry: retry.Limits = field(default_factory=retry.Limits)
    retry_share: float = 0.1
    breaker: breaker.Limits = field(default_factory=breaker.Limits)

    def __post_init__(self) -> None:
        assert all(lane.wait_s <= self.total_s for lane in self.lanes), "the total holds because no part of it is longer"


SQL: Final = Policy(
    "sql",
    total_s=5.0,
    attempt_s=1.5,
    permits=25,  # connections of the pool: a server runs out of them long before it runs out of anything else
    lanes=(
        Lane("auth", reserved=4, waiting_max=25, wait_s=1.0),  # who cannot log in cannot do anything, and logins come in storms
        Lane("chat", reserved=8, waiting_max=50, wait_s=1.0),
        Lane("background", reserved=2, waiting_max=25, wait_s=5.0),  # sweeps must go on, and can wait
    ),
    full_code="DB_POOL_EXHAUSTED",
)
CASSANDRA: Final = Policy(
    "cassandra",
    total_s=5.0,
    attempt_s=1.5,
    permits=64,  # requests in flight: conditional writes of many conversations, each a Paxos round of some ms
    lanes=(
        Lane("write", reserved=32, waiting_max=256, wait_s=1.0),  # a storm of history reads must not hold up sends
        Lane("read", reserved=16, waiting_max=256, wait_s=1.0),
    ),
)
REDIS: Final = Policy(
    "redis",
    total_s=1.0,
    attempt_s=0.3,
    permits=1_024,  # one multiplexed link answers them all within a round trip; more is a link that stands still
    lanes=(Lane("command", reserved=0, waiting_max=0, wait_s=0.1),),  # nobody waits: each of these has an answer without Redis
)
BLOBS: Final = Policy(
    "s3",
    total_s=5.0,
    attempt_s=1.5,
    permits=32,  # connections
    lanes=(Lane("request", reserved=0, waiting_max=64, wait_s=1.0),),
)


@dataclass(frozen=True, slots=True)
class StackStatistics:
    """What is now, and counts since the start. `since_s`: the loop's time of the breaker's last opening or closing."""

    breaker: breaker.State
    since_s: float
    opened_total: int
    refused_total: int
    in_use: Mapping[str, int]
    waiting: Mapping[str, int]
    full_total: int
    gave_up_total: int
    retries_total: int
    retries_refused_total: int
    reruns_total: int
    expired_total: int
    cut_short_total: int


class Stack:
    """All layers around one direction of one dependency. `random()` is uniform in [0, 1).

    >>> from secureconnect.errors import BackendDown
    >>> stack = Stack(SQL, random=lambda: 0.5)
    >>> async def select() -> int:
    ...     return 42
    >>> import anyio
    >>> anyio.run(lambda: stack(select, lane="chat", changes=False, is_repeatable=True))
    42
    >>> stack.statistics().breaker
    'closed'
    """

    def __init__(self, policy: Policy, *, random: Callable[[], float]) -> None:
        name = policy.name
        self.policy = policy
        self.bulkhead = Bulkhead(name, policy.permits, policy.lanes, code=policy.full_code)
        self.retry = Retry(policy.retry, random=random, budget=Budget(share=policy.retry_share))
        self.breaker = Breaker(name, policy.breaker)
        self.attempt = Deadline(policy.attempt_s, name)
        self.refused_total = 0
        """Calls that the dependency did not serve."""
        self._on_refusal: list[Callable[[], None]] = []

    def on_refusal(self, listener: Callable[[], None]) -> None:
        """`listener` is told of each call that the dependency did not serve, before its caller is. It must not block or raise.

        A queue of our own that is full, and a caller's time that was over, say nothing of the dependency.
        """
        self._on_refusal.append(listener)

    async def __call__(self, call: Callable[[], Awaitable[T]], *, lane: str, changes: bool, is_repeatable: bool) -> T:
        """Make one call of the dependency.

        `changes`: it writes, so one without an answer may have been done. `is_repeatable`: done twice is the same as done once.
        Raises: BreakerOpen, Overloaded (at once, nothing done), BackendDown, DeadlineExceeded (nothing done), OutcomeUnknown;
        what `call` refuses, unchanged. Cancellation: permits are given back; a write may have been done.
        """
        # The total is outermost and no scope of its own, which would cost 10 µs a call: nothing inside waits beyond `until_s`.
        # It is one promise over waits, tries and pauses.
        until_s = anyio.current_time() + self.policy.total_s

        # The others, from the innermost outwards; each says why it stands just there.
        def attempt() -> Awaitable[T]:  # bounds one try, so that time is left for another; its end is a failure to the breaker
            return self.attempt(call, until_s=until_s)

        async def counted() -> T:  # inside the retries: the breaker counts every try, and ends them by opening
            try:
                return await self.breaker(attempt)
            except DeadlineExceeded as error:
                if changes:
                    raise OutcomeUnknown(f"{error}; it may have been done", details=error.details) from error
                raise

        def tried() -> Awaitable[T]:  # inside the bulkhead: a retry keeps its permit, and never stands in line again
            return self.retry(counted, is_repeatable=is_repeatable, until_s=until_s)

        try:
            self.breaker.check()  # before the bulkhead: while open nobody stands in line, and the refusal takes no time
            return await self.bulkhead(
                tried, lane=lane
            )  # inside the total: a lane's wait is part of what the caller was promised
        except (*breaker.ANSWERS, OutOfTime):
            raise
        except (BreakerOpen, *breaker.FAILURES):  # outermost: what a retry made good, nobody was refused
            self.refused_total += 1
            for listener in self._on_refusal:
                listener()
            raise

    def statistics(self) -> StackStatistics:
        circuit, lines, budget = self.breaker.circuit, self.bulkhead.lines, self.retry.budget
        return StackStatistics(
            breaker=circuit.state,
            since_s=circuit.since_s,
            opened_total=circuit.opened_total,
            refused_total=circuit.refused_total,
            in_use=lines.in_use,
            waiting=lines.waiting,
            full_total=lines.full_total,
            gave_up_total=self.bulkhead.gave_up_total,
            retries_total=budget.spent_total,
            retries_refused_total=budget.refused_total,
            reruns_total=self.retry.reruns_total,
            expired_total=self.attempt.expired_total,
            cut_short_total=self.attempt.cut_short_total,
        )


STATES: Final[Mapping[breaker.State, int]] = {"closed": 0, "half_open": 1, "open": 2}
"""As a figure shows them."""


def figures(stacks: Mapping[str, Stack]) -> Mapping[str, Callable[[], Mapping[str, float]]]:
    """The state of all stacks as figures by name, each read by dependency: what `/metrics` watches."""

    def by_name(read: Callable[[StackStatistics], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {name: read(stack.statistics()) for name, stack in stacks.items()}

    return {
        "secureconnect_breaker_state": by_name(lambda s: STATES[s.breaker]),
        "secureconnect_breaker_opened_total": by_name(lambda s: s.opened_total),
        "secureconnect_breaker_refused_total": by_name(lambda s: s.refused_total),
        "secureconnect_bulkhead_in_use": by_name(lambda s: sum(s.in_use.values())),
        "secureconnect_bulkhead_waiting": by_name(lambda s: sum(s.waiting.values())),
        "secureconnect_bulkhead_refused_total": by_name(lambda s: s.full_total + s.gave_up_total),
        "secureconnect_retries_total": by_name(lambda s: s.retries_total),
        "secureconnect_retries_refused_total": by_name(lambda s: s.retries_refused_total),
        "secureconnect_reruns_total": by_name(lambda s: s.reruns_total),
        "secureconnect_attempts_expired_total": by_name(lambda s: s.expired_total),
        "secureconnect_attempts_cut_short_total": by_name(lambda s: s.cut_short_total),
    }
