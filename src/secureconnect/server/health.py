"""Is it alive, is it ready, and what is the state of what it needs: measured by the dependency's real operation, never guessed.

A prober writes once a second, as a request would. `slow` is two probes in a row over 0.5 s; `down` is two failures in a row; one
good probe ends either. So a fault is named within 5 s and cleared within 10 s.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog
import trio

from secureconnect.errors import SecureConnectError
from secureconnect.hub import Ledger
from secureconnect.ports import Clock
from secureconnect.server.wire import rfc3339

PROBE_PERIOD_S = 1.0
PROBE_DEADLINE_S = 1.5
SOON_S = 0.5
"""The same after a first failed probe: two that time out still fit into the 5 s in which a fault is named."""
SLOW_S = 0.5
IN_A_ROW = 2
"""Probes that must agree before a state is called worse: one hiccup is not a fault."""

State = Literal["unknown", "up", "slow", "down"]

_log = structlog.get_logger("secureconnect.health")


@dataclass(slots=True)
class Dependency:
    """What is known of one dependency. Pure: `probed` and `failed` are told what happened."""

    name: str
    breaker: Callable[[], str] = lambda: "closed"
    pool: Callable[[], Mapping[str, int]] | None = None
    state: State = "unknown"
    since_us: int = 0
    latency_ms: float | None = None
    error: str | None = None
    checks: dict[str, int] = field(default_factory=lambda: {"answered": 0, "failed": 0})
    """Probes by outcome, since the start."""
    _slow: int = 0
    _failures: int = 0

    @property
    def is_in_doubt(self) -> bool:
        """The last probe failed, and that is not yet enough to call it down."""
        return 0 < self._failures < IN_A_ROW

    def probed(self, seconds: float, now_us: int) -> None:
        """A probe was answered after `seconds`."""
        self.checks["answered"] += 1
        self._failures = 0
        self._slow = self._slow + 1 if seconds > SLOW_S else 0
        self.latency_ms, self.error = round(seconds * 1000, 3), None
        self._become("slow" if self._slow >= IN_A_ROW else "up", now_us)

    def failed(self, error: str, now_us: int) -> None:
        """A probe failed or did not end within its deadline."""
        self.checks["failed"] += 1
        self._failures += 1
        self.error = error
        if self._failures >= IN_A_ROW or self.state == "unknown":
            self._become("down", now_us)

    @property
    def is_up(self) -> bool:
        """Whether its probe is answered, slowly or not."""
        return self.state in ("up", "slow")

    def _become(self, state: State, now_us: int) -> None:
        if state != self.state:
            self.state, self.since_us = state, now_us

    def show(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "state": self.state,
            "since": rfc3339(self.since_us),
            "latency_ms": self.latency_ms,
            "breaker": self.breaker(),
        }
        if self.pool is not None:
            shown["pool"] = self.pool()
        if self.error is not None:
            shown["error"] = self.error
        return shown


class Prober:
    """Probes one dependency until cancelled."""

    def __init__(
        self,
        dependency: Dependency,
        probe: Callable[[], Awaitable[None]],
        clock: Clock,
        *,
        pause_s: Callable[[], float] = lambda: PROBE_PERIOD_S,
        told: Callable[[float | None], None] = lambda seconds: None,
    ) -> None:
        """`told` hears of each probe when the dependency knows: the seconds until its answer, None when it failed."""
        self._dependency = dependency
        self._probe = probe
        self._clock = clock
        self._pause_s = pause_s
        self._told = told

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self.once()
            await trio.sleep(min(self._pause_s(), SOON_S if self._dependency.is_in_doubt else math.inf))

    async def once(self) -> None:
        began_s = trio.current_time()
        error, why = f"no answer within {PROBE_DEADLINE_S:g} s", ""
        with trio.move_on_after(PROBE_DEADLINE_S) as scope:
            try:
                await self._probe()
            except SecureConnectError as caught:
                error, why = caught.message, str(caught)
            else:
                error = ""
        dependency, was = self._dependency, self._dependency.state
        seconds = None if error or scope.cancelled_caught else trio.current_time() - began_s
        if seconds is None:
            dependency.failed(error, self._clock.now_us())
        else:
            dependency.probed(seconds, self._clock.now_us())
        if dependency.state != was:
            self._tell(was, why or error)
        self._told(seconds)

    def _tell(self, was: State, why: str) -> None:
        dependency = self._dependency
        if dependency.state == "up":
            _log.info("dependency_up", name=dependency.name, was=was)
        else:
            _log.warning(f"dependency_{dependency.state}", name=dependency.name, was=was, error=why)


@dataclass(slots=True)
class Readiness:
    """Whether new traffic should come here. Never `False` for what all nodes lack: `is_cut_off` says that this one is without
    what the others have."""

    started: bool = False
    draining: bool = False
    is_cut_off: Callable[[], bool] = lambda: False

    def answer(self) -> tuple[bool, str]:
        if self.draining:
            return False, "draining"
        if not self.started:
            return False, "starting"
        return (False, "cut_off") if self.is_cut_off() else (True, "ready")


@dataclass(slots=True)
class NodeHealth:
    """The answers of `/livez`, `/readyz`, `/healthz`, `/health` and `/metrics`; implements the routes' `Health`."""

    node: str
    version: str
    clock: Clock
    readiness: Readiness
    dependencies: Mapping[str, Dependency]
    queues: Callable[[], Mapping[str, object]]
    ledger: Callable[[], Mapping[str, object]]
    process: Callable[[], Mapping[str, object]]
    scrape: Callable[[], bytes]
    degraded: Callable[[], Mapping[str, object]] = dict
    receipts: Callable[[], Sequence[Mapping[str, object]]] = list
    started_us: int = field(init=False)

    def __post_init__(self) -> None:
        self.started_us = self.clock.now_us()

    def live(self) -> tuple[int, dict[str, object]]:
        """The event loop turns: it just did."""
        return 200, {"status": "alive"}

    def ready(self) -> tuple[int, dict[str, object]]:
        is_ready, why = self.readiness.answer()
        return (200 if is_ready else 503), {"status": why}

    def graph(self) -> tuple[int, dict[str, object]]:
        status = self._status()
        shown = {
            "status": status,
            "node": self.node,
            "version": self.version,
            "uptime_s": round((self.clock.now_us() - self.started_us) / 1_000_000, 3),
            "dependencies": {name: d.show() for name, d in self.dependencies.items()},
            "queues": self.queues(),
            "degraded": self.degraded(),
            "ledger": self.ledger(),
            "receipts": self.receipts(),
            "process": self.process(),
        }
        return (503 if status == "unhealthy" else 200), shown

    def summary(self) -> tuple[int, dict[str, object]]:
        """In the form of the original's `/health`, with the truth inside."""
        status = self._status()
        shown: dict[str, object] = {
            "status": status,
            "service": "secureconnect",
            "timestamp": rfc3339(self.clock.now_us()),
            "dependencies": {name: d.state for name, d in self.dependencies.items()},
            "degraded": list(self.degraded()),
        }
        return (503 if status == "unhealthy" else 200), shown

    def metrics(self) -> bytes:
        return self.scrape()

    def _status(self) -> str:
        """`unhealthy` only when the node cannot serve: it has not started, or its only store is down."""
        states = [d.state for d in self.dependencies.values()]
        if not self.readiness.started or self.dependencies["sql"].state == "down":
            return "unhealthy"
        return "degraded" if any(s in ("slow", "down") for s in states) or self.degraded() else "healthy"


def ledger_object(ledger: Ledger) -> dict[str, object]:
    """The books of deliveries, as health shows them."""
    return {
        "published": ledger.published,
        "delivered": ledger.delivered,
        "dropped": dict(ledger.dropped),
        "pending": ledger.pending,
        "replayed": ledger.replayed,
        "polled": ledger.polled,
    }
