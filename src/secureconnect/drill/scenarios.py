"""The six scenarios: what is broken, what must hold, and whether it has been measured. Never a guess.

An experiment is added together with what it needs; until then its scenario says which part of the product it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["measured", "not built"]
HOLDS = ("isolated", "no cascade", "no data loss", "fail behaviour")
"""The four verdicts that each scenario needs, all of them, for its 100 %."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. `waits_for` says in words what brings its experiment."""

    name: str
    breaks: str
    must_hold: str
    waits_for: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a drill knows of one scenario. `holds`: each of `HOLDS`, None where nothing was measured."""

    scenario: Scenario
    verdict: Verdict
    holds: dict[str, bool | None]
    evidence: str


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "redis",
        "Redis is killed, frozen, refused, slow, or restarted empty",
        "log in, send and receive go on: on the same node as usual, across nodes within 2 s; live again 2 s after its return",
        "the Redis backend and clusters of several nodes",
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
        "the PostgreSQL and CockroachDB backend with its pool",
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
        "the load generator and the verdicts over what it measures",
    ),
    Scenario(
        "push",
        "push providers time out, answer 5xx or 429, refuse tokens or credentials",
        "nothing else notices; notices wait, expire or collapse; dead tokens are deactivated",
        "push notifications and their outbox",
    ),
)


def findings(names: tuple[str, ...] = ()) -> list[Finding]:
    """What is known of the scenarios with these names; of all, without any. Names that do not exist are left out."""
    wanted = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    return [
        Finding(scenario, "not built", dict.fromkeys(HOLDS), f"no experiment yet: it comes with {scenario.waits_for}")
        for scenario in wanted
    ]
