"""Deadlines, bulkheads, retries, breakers: a library around calls that may fail, for asyncio and trio.

Each takes an async callable without arguments and is awaited in its place: `await breaker(partial(link.command, "PING"))`. Each
is of use alone; `Stack` puts them around a dependency in the order that makes them one. They know errors and time, and nothing
of what they guard. What is pure (`Circuit`, `Lines`, `Tries`, `Budget`) is given the time and does no waiting.
"""

from __future__ import annotations

from .breaker import Breaker, Circuit
from .breaker import Limits as BreakerLimits
from .bulkhead import Bulkhead, Caller, Lane, Lines
from .deadline import Deadline
from .errors import Contention, OutOfTime
from .retry import Budget, Retry, Tries, full_jitter_s
from .retry import Limits as RetryLimits
from .stack import BLOBS, CASSANDRA, REDIS, SQL, Policy, Stack, StackStatistics, figures

__all__ = [
    "BLOBS", "CASSANDRA", "REDIS", "SQL", "Breaker", "BreakerLimits", "Budget", "Bulkhead", "Caller", "Circuit", "Contention",
    "Deadline", "Lane", "Lines", "OutOfTime", "Policy", "Retry", "RetryLimits", "Stack", "StackStatistics", "Tries", "figures",
    "full_jitter_s",
]  # fmt: skip
