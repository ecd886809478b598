"""Trying again: a few times, at random moments, out of a budget, and never past the deadline.

Theory. A retry helps against a hiccup and makes an outage worse, so it is rationed twice. A call gets `retries_max`, each after a
random part of a doubling bound (full jitter: those who failed together do not come back together). All calls of a dependency
share a budget that only successes fill, a tenth of a retry each: while most calls succeed every hiccup is retried, and when all
fail the retries end with the reserve, which is all that an outage ever gets beside its calls.

- Only what may be done twice is retried (`is_repeatable`: a read, or a write under an idempotency key), and only after errors
  that a dependency caused. Refusals of the breaker or of the bulkhead are not: they say that asking is useless.
- What is unknown stays unknown: when the first try may have been done and the second is refused, the answer is that it may
  have been done.
- A lost serialization (`Contention`) is no failure: nothing was done, the database is well, and the same again will do. It is
  run again up to `reruns_max` times whatever else is true, outside the budget.
- A pause that does not fit before the caller's deadline is not begun: an error now is worth more than a timeout later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Final, TypeVar

import anyio

from secureconnect.errors import BackendDown, DeadlineExceeded, OutcomeUnknown, StorageFull, Unavailable

from .errors import Contention

T = TypeVar("T")

RETRIED: Final = (BackendDown, DeadlineExceeded, OutcomeUnknown)
NEVER_RETRIED: Final = (StorageFull,)
"""Down, in a way that a second try will find the same."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often, how soon (failure-policy.md §1)."""

    retries_max: int = 3
    first_s: float = 0.05
    """The bound of the first pause; it doubles. About one round trip to a database under load."""
    longest_s: float = 1.0
    reruns_max: int = 8
    rerun_first_s: float = 0.005
    """The bound of the first pause after a lost serialization: the other transaction is nearly done."""
    rerun_longest_s: float = 0.1


class Budget:
    """Retries that all calls of a dependency may make: a `share` of its successes, and `reserve` on top of that.

    >>> budget = Budget(share=0.1, reserve=1)
    >>> budget.spend(), budget.spend()
    (True, False)
    >>> for _ in range(10):
    ...     budget.earn()
    >>> budget.spend(), budget.spend()
    (True, False)
    """

    def __init__(self, *, share: float = 0.1, reserve: float = 10.0) -> None:
        """`reserve`: what may be saved, and what is there at the start: a server that restarts fails many calls at once."""
        self.spent_total = 0
        self.refused_total = 0
        self._share = share
        self._reserve = reserve
        self._left = reserve

    def earn(self) -> None:
        """A call succeeded."""
        self._left = min(self._reserve, self._left + self._share)

    def spend(self) -> bool:
        """One retry, if there is one left. A hair of tolerance: ten tenths are one."""
        if self._left < 1.0 - 1e-9:
            self.refused_total += 1
            return False
        self._left -= 1.0
        self.spent_total += 1
        return True


def full_jitter_s(failures: int, random: float, *, first_s: float, longest_s: float) -> float:
    """The pause after so many failures (1, 2, …): a random part of a bound that doubles. `random` is uniform in [0, 1).

    >>> [full_jitter_s(n, 0.5, first_s=0.1, longest_s=1.0) for n in (1, 2, 3, 9)]
    [0.05, 0.1, 0.2, 0.5]
    """
    return random * min(longest_s, first_s * 2.0 ** min(failures - 1, 32))


class Tries:
    """The core: the tries of one call."""

    def __init__(self, limits: Limits, budget: Budget, *, is_repeatable: bool) -> None:
        self.retries = 0
        self.reruns = 0
        self._limits = limits
        self._budget = budget
        self._is_repeatable = is_repeatable
        self._unknown: OutcomeUnknown | None = None

    def pause_s(self, error: Unavailable, *, random: float, left_s: float) -> float | None:
        """How long to wait before the next try; None: there is none. `left_s`: seconds to the caller's deadline."""
        if isinstance(error, OutcomeUnknown):
            self._unknown = error
        limits = self._limits
        if isinstance(error, Contention):
            pause_s = full_jitter_s(self.reruns + 1, random, first_s=limits.rerun_first_s, longest_s=limits.rerun_longest_s)
            if self.reruns >= limits.reruns_max or pause_s >= left_s:
                return None
            self.reruns += 1
            return pause_s
        pause_s = full_jitter_s(self.retries + 1, random, first_s=limits.first_s, longest_s=limits.longest_s)
        is_worth_it = self._is_repeatable and isinstance(error, RETRIED) and not isinstance(error, NEVER_RETRIED)
        if not is_worth_it or self.retries >= limits.retries_max or pause_s >= left_s or not self._budget.spend():
            return None
        self.retries += 1
        return pause_s

    def verdict(self, error: Unavailable) -> Unavailable:
        """What the call failed with, all tries considered: `error`, the last one's, unless an earlier one may have been done."""
        return error if self._unknown is None else self._unknown


class Retry:
    """The shell. `random()` is uniform in [0, 1).

    >>> answers = iter([BackendDown("redis"), "PONG"])
    >>> async def ping() -> str:
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> retry = Retry(random=lambda: 0.1)
    >>> anyio.run(lambda: retry(ping, is_repeatable=True))
    'PONG'
    """

    def __init__(self, limits: Limits = Limits(), *, random: Callable[[], float], budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.reruns_total = 0
        self._limits = limits
        self._random = random

    async def __call__(self, call: Callable[[], Awaitable[T]], *, is_repeatable: bool, until_s: float = inf) -> T:
        """The first result that comes. `until_s`: the caller's deadline in the loop's time, beside those of the scopes around.

        Raises: the last error; OutcomeUnknown when any try may have been done. Cancellation: passes, in a try or in a pause.
        """
        tries: Tries | None = None
        while True:
            try:
                result = await call()
            except Unavailable as error:
                tries = tries or Tries(self._limits, self.budget, is_repeatable=is_repeatable)
                left_s = min(until_s, anyio.current_effective_deadline()) - anyio.current_time()
                pause_s = tries.pause_s(error, random=self._random(), left_s=left_s)
                if pause_s is None:
                    verdict = tries.verdict(error)
                    if verdict is error:
                        raise
                    raise verdict from error
                self.reruns_total += isinstance(error, Contention)
            else:
                self.budget.earn()
                return result
            await anyio.sleep(pause_s)
