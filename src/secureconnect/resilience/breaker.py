"""Calls to what is failing are refused at once, until a probe shows that it works again.

Theory. *Closed*: calls pass and are counted. It opens when `failures_max` fail in a row, when half of enough calls in the window
fail, or when the prober's write probe fails twice in a row. *Open*: calls are refused, at once and without awaiting anything.
*Half open*: the canary is under way, and calls are still refused: the canary is the prober's own probe, never a user's request,
so nobody pays for the question whether it works again. It closes when a canary succeeds that began after the opening.

- A failure is that the dependency did not do its part: away, no answer in time, an answer lost. That it refuses (a conflict, a
  full disk, a lost serialization) is an answer, as good as any. All else says nothing: an outside cancellation, a try cut short
  by its caller's time, a bug, a queue of our own.
- Every opening and closing begins a new generation. What began in an older one is not counted: a call that hangs since before
  the outage must not open the breaker anew ten seconds after the heal.

`Circuit` is the core, pure, time in seconds passed in. There is one breaker for each dependency and direction: what subscribes
says nothing of what publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import anyio

from secureconnect.errors import BackendDown, BreakerOpen, DeadlineExceeded, OutcomeUnknown, Refused, StorageFull

from .errors import Contention, OutOfTime

T = TypeVar("T")
State = Literal["closed", "half_open", "open"]

FAILURES: Final = (BackendDown, DeadlineExceeded, OutcomeUnknown)
ANSWERS: Final = (Refused, StorageFull, Contention)

PROBE_PERIOD_S: Final = 1.0
"""Between two probes while closed (interface.md §7)."""
CANARY_PERIOD_S: Final = (0.5, 1.0)
"""The same while open, with jitter, so that not all nodes ask at once (failure-policy.md §1)."""
_SLICES: Final = 10
"""Parts of the window: a call is forgotten between one window and a tenth more after it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When it opens (failure-policy.md §1)."""

    failures_max: int = 5
    """Failures in a row."""
    failure_share: float = 0.5
    """Failures among the calls of the window …"""
    calls_min: int = 20
    """… when there are at least so many."""
    window_s: float = 10.0
    probe_failures_max: int = 2
    """Failed probes in a row: the same number that makes a dependency `down` in `/healthz`."""


@dataclass(slots=True)
class _Slice:
    begins_s: float
    calls: int = 0
    failures: int = 0


class Circuit:
    """The core. `admit` gives a ticket to bring back with the outcome; who brings none back is not counted."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.state: State = "closed"
        self.since_s = 0.0
        """When it opened or closed last; it may be half open since later."""
        self.opened_total = 0
        self.refused_total = 0
        self._limits = limits
        self._generation = 0
        self._canary = 0
        self._failures = 0
        self._probe_failures = 0
        self._window: deque[_Slice] = deque()

    def admit(self) -> int | None:
        """A ticket; None: refused."""
        if self.state == "closed":
            return self._generation
        self.refused_total += 1
        return None

    def succeeded(self, ticket: int, now_s: float) -> None:
        """The call was answered."""
        if ticket == self._generation:
            self._failures = 0
            self._count(now_s, failures=0)

    def failed(self, ticket: int, now_s: float) -> None:
        """The call failed."""
        if ticket != self._generation:
            return
        self._failures += 1
        self._count(now_s, failures=1)
        if self._failures >= self._limits.failures_max or self._is_bad():
            self._open(now_s)

    def begin_probe(self) -> tuple[int, int]:
        """A probe begins; open becomes half open. Returns its ticket for `probed`."""
        if self.state == "open":
            self.state = "half_open"
        self._canary += 1
        return self._generation, self._canary

    def probed(self, ticket: tuple[int, int], now_s: float, *, ok: bool) -> None:
        """The probe ended. Only the newest counts, and only when it began after the last opening or closing."""
        if ticket != (self._generation, self._canary):
            return
        if self.state == "closed":
            self._probe_failures = 0 if ok else self._probe_failures + 1
            if self._probe_failures >= self._limits.probe_failures_max:
                self._open(now_s)
        elif ok:
            self._begin("closed", now_s)
        else:
            self.state = "open"

    def _open(self, now_s: float) -> None:
        self.opened_total += 1
        self._begin("open", now_s)

    def _begin(self, state: State, now_s: float) -> None:
        self.state, self.since_s = state, now_s
        self._generation += 1
        self._failures = self._probe_failures = 0
        self._window.clear()

    def _count(self, now_s: float, *, failures: int) -> None:
        window, length_s = self._window, self._limits.window_s / _SLICES
        if not window or now_s >= window[-1].begins_s + length_s:
            window.append(_Slice(now_s))
        while now_s > window[0].begins_s + self._limits.window_s + length_s:
            window.popleft()
        window[-1].calls += 1
        window[-1].failures += failures

    def _is_bad(self) -> bool:
        calls = sum(part.calls for part in self._window)
        failures = sum(part.failures for part in self._window)
        return calls >= self._limits.calls_min and failures >= self._limits.failure_share * calls


class Breaker:
    """The shell: a `Circuit` around calls of the dependency `name`.

    Open, it waits for whoever says `probe`; without a prober it stays so.

    >>> breaker = Breaker("redis", Limits(failures_max=1))
    >>> async def ping() -> str:
    ...     raise BackendDown("redis")
    >>> async def main() -> str:
    ...     for _ in range(2):
    ...         try:
    ...             await breaker(ping)
    ...         except (BackendDown, BreakerOpen) as error:
    ...             print(type(error).__name__)
    ...     return breaker.circuit.state
    >>> anyio.run(main)
    BackendDown
    BreakerOpen
    'open'
    """

    def __init__(self, name: str, limits: Limits = Limits()) -> None:
        self.name = name
        self.circuit = Circuit(limits)

    def check(self) -> None:
        """Nothing while closed, so that nobody stands in line for a refusal. Raises: BreakerOpen."""
        if self.circuit.admit() is None:
            raise self._refusal()

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` returns or raises, counted.

        Raises: BreakerOpen, at once and without awaiting. Cancellation: passes, and is not counted.
        """
        ticket = self.circuit.admit()
        if ticket is None:
            raise self._refusal()
        try:
            result = await call()
        except ANSWERS:
            self.circuit.succeeded(ticket, anyio.current_time())
            raise
        except OutOfTime:
            raise
        except FAILURES:
            self.circuit.failed(ticket, anyio.current_time())
            raise
        self.circuit.succeeded(ticket, anyio.current_time())
        return result

    async def probe(self, probe: Callable[[], Awaitable[None]]) -> None:
        """The prober's write probe, one at a time, while open as the canary; what it raises passes.

        Cancellation counts as a failure: it is the prober's own deadline, or nobody will ask the breaker again.
        """
        ticket = self.circuit.begin_probe()
        try:
            await probe()
        except BaseException:
            self.circuit.probed(ticket, anyio.current_time(), ok=False)
            raise
        self.circuit.probed(ticket, anyio.current_time(), ok=True)

    def pause_s(self, random: float) -> float:
        """Seconds to the next probe; `random` is uniform in [0, 1)."""
        shortest_s, longest_s = CANARY_PERIOD_S
        return PROBE_PERIOD_S if self.circuit.state == "closed" else shortest_s + random * (longest_s - shortest_s)

    def _refusal(self) -> BreakerOpen:
        return BreakerOpen(f"{self.name} is failing; it is not asked before it works again", details={"dependency": self.name})
