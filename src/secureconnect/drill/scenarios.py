"""The six scenarios: what is broken, what must hold, and whether it has been measured. Never a guess.

An experiment is added together with what it needs; until then its scenario says which part of the product it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from secureconnect.drill.oracle import BEHAVIOUR, ISOLATED, NO_CASCADE, NO_LOSS, Check, verdict

if TYPE_CHECKING:
    from secureconnect.drill.record import Record

Verdict = Literal["measured", "not measured", "not built"]
HOLDS = (ISOLATED, NO_CASCADE, NO_LOSS, BEHAVIOUR)
"""The four verdicts that each scenario needs, all of them, for its 100 %."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. `waits_for` says in words what brings its experiment, or what of it is still missing."""

    name: str
    breaks: str
    must_hold: str
    waits_for: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """One fault for so long, and what was seen. `record` None: it was read back from a file."""

    fault: str
    for_s: float
    checks: Sequence[Check]
    record: Record | None = None

    def holds(self) -> dict[str, bool | None]:
        """By aspect."""
        return {aspect: verdict(self.checks, aspect) for aspect in HOLDS}

    def line(self) -> str:
        """For a terminal: what fell short, or that nothing did."""
        short = [f"{check.name}: {check.evidence}" for check in self.checks if check.holds is False]
        unknown = sum(check.holds is None for check in self.checks)
        told = "; ".join(short) or "all that was measured holds"
        return f"  {self.fault}, {self.for_s:g} s: {told} ({len(self.checks) - unknown} of {len(self.checks)} checks measured)"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a drill knows of one scenario. `holds`: each of `HOLDS`, None where nothing was measured."""

    scenario: Scenario
    verdict: Verdict
    holds: dict[str, bool | None]
    evidence: str
    experiments: Sequence[Experiment] = ()

    @property
    def percent(self) -> float | None:
        """Aspects of all experiments that hold, of those that were measured; None: nothing was."""
        found = [held for one in self.experiments for held in one.holds().values() if held is not None]
        return 100 * sum(found) / len(found) if found else None


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "redis",
        "Redis is killed, frozen, refused, slow, or restarted empty",
        "log in, send and receive go on: on the same node as usual, across nodes within 2 s; live again 2 s after its return",
        "",
    ),
    Scenario(
        "cassandra",
        "Cassandra answers in 10 s, is frozen, killed or overloaded",
        "no request hangs; sends are accepted or refused honestly; recent history is served; nothing else notices",
        "the message store on Cassandra and the journal of accepted messages",
    ),
    Scenario(
        "sql",
        "the SQL pool is busy, the server full, frozen, restarted, or in conflict",
        "503 with Retry-After within 5 s, never a hang or a 500; chat among present members goes on",
        "not built: chat among present members goes on, which waits for the journal of accepted messages",
    ),
    Scenario(
        "crash",
        "one role or worker is killed, or throws in any handler or task",
        "only its routes answer 502 or 503; it is restarted; clients resume without loss or duplicates",
        "roles in processes of their own, with their supervisor and gateway",
    ),
    Scenario(
        "sockets",
        "very many sockets: the limit, a storm, readers that do not read, one hot room",
        "refused cleanly before the upgrade; a slow reader costs nobody else anything; memory stays under its bound",
        "experiments with tens of thousands of sockets",
    ),
    Scenario(
        "push",
        "push providers time out, answer 5xx or 429, refuse tokens or credentials",
        "nothing else notices; notices wait, expire or collapse; dead tokens are deactivated",
        "push notifications and their outbox",
    ),
)
BUILT: frozenset[str] = frozenset({"redis", "sql"})
"""Scenarios that have experiments."""


def wanted(names: Sequence[str]) -> list[Scenario]:
    """The scenarios with these names; all, without any. Names that do not exist are left out."""
    return [scenario for scenario in SCENARIOS if not names or scenario.name in names]


def not_run(scenario: Scenario, why: str = "") -> Finding:
    """What is known of a scenario without a run. `why`: there are experiments, and this is why they did not run."""
    if scenario.name in BUILT:
        return Finding(scenario, "not measured", dict.fromkeys(HOLDS), why or "its experiments were not run")
    return Finding(scenario, "not built", dict.fromkeys(HOLDS), f"no experiment yet: it comes with {scenario.waits_for}")


def measured(scenario: Scenario, experiments: Sequence[Experiment]) -> Finding:
    """An aspect holds when it held in every experiment that could tell."""
    holds: dict[str, bool | None] = {}
    for aspect in HOLDS:
        found = [held for one in experiments if (held := one.holds()[aspect]) is not None]
        holds[aspect] = all(found) if found else None
    checks = [check for one in experiments for check in one.checks]
    short = sum(check.holds is False for check in checks)
    told = sum(check.holds is not None for check in checks)
    missing = f"; {scenario.waits_for}" if scenario.waits_for else ""
    evidence = f"{len(experiments)} experiments, {told} checks measured, {short} fell short{missing}"
    return Finding(scenario, "measured", holds, evidence, experiments)
