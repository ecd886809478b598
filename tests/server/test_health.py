"""The prober's rules and the answers of the health routes."""

from __future__ import annotations

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from secureconnect.errors import BackendDown
from secureconnect.server.health import Dependency, NodeHealth, Prober, Readiness


class FixedClock:
    def now_us(self) -> int:
        return 1_700_000_000_000_000


def test_one_slow_probe_is_a_hiccup_and_two_are_a_state() -> None:
    sql = Dependency("sql")
    sql.probed(0.9, 1)
    assert sql.state == "up"
    sql.probed(0.9, 2)
    assert (sql.state, sql.since_us) == ("slow", 2)
    sql.probed(0.001, 3)
    assert (sql.state, sql.since_us) == ("up", 3)


def test_two_failures_in_a_row_are_down_and_one_good_probe_ends_it() -> None:
    sql = Dependency("sql")
    sql.probed(0.001, 1)
    sql.failed("refused", 2)
    states = [sql.state]
    sql.failed("refused", 3)
    states.append(sql.state)
    sql.probed(0.001, 4)
    states.append(sql.state)
    assert states == ["up", "down", "up"]
    assert sql.error is None


def test_a_dependency_that_never_answered_is_down_at_once() -> None:
    sql = Dependency("sql")
    sql.failed("refused", 1)
    assert sql.state == "down"


async def test_a_probe_that_hangs_is_a_failure_at_its_deadline(autojump_clock: MockClock) -> None:
    sql = Dependency("sql")
    prober = Prober(sql, trio.sleep_forever, FixedClock())
    await prober.once()
    assert sql.state == "down"
    assert sql.error == "no answer within 1.5 s"


async def test_a_probe_that_is_refused_says_why() -> None:
    async def refuse() -> None:
        await trio.lowlevel.checkpoint()
        raise BackendDown("sql", "the disk is read-only")

    sql = Dependency("sql")
    await Prober(sql, refuse, FixedClock()).once()
    assert sql.error == "the disk is read-only"


async def test_every_change_of_state_is_logged_with_what_only_the_operator_may_see() -> None:
    problems = [None, BackendDown("sql", "The disk is full", inside="/data/a.db"), BackendDown("sql", "The disk is full"), None]
    at = iter(problems)

    async def probe() -> None:
        await trio.lowlevel.checkpoint()
        if (problem := next(at)) is not None:
            raise problem

    sql = Dependency("sql")
    prober = Prober(sql, probe, FixedClock())
    with capture_logs() as logs:
        for _ in range(2):
            await prober.once()
        assert sql.error == "The disk is full"
        for _ in range(2):
            await prober.once()
    assert [(line["event"], line["log_level"], line["was"]) for line in logs] == [
        ("dependency_up", "info", "unknown"),
        ("dependency_down", "warning", "up"),
        ("dependency_up", "info", "down"),
    ]


def health(sql: Dependency, readiness: Readiness) -> NodeHealth:
    return NodeHealth("n1", "0.1", FixedClock(), readiness, {"sql": sql}, dict, dict, dict, lambda: b"")


def test_ready_follows_start_and_drain_and_no_shared_dependency() -> None:
    readiness, sql = Readiness(), Dependency("sql")
    node = health(sql, readiness)
    assert node.ready() == (503, {"status": "starting"})
    readiness.started = True
    sql.failed("refused", 1)
    assert node.ready() == (200, {"status": "ready"})
    readiness.draining = True
    assert node.ready() == (503, {"status": "draining"})


def test_the_graph_tells_degraded_from_unhealthy() -> None:
    readiness, sql = Readiness(started=True), Dependency("sql")
    node = health(sql, readiness)
    sql.probed(0.001, 1)
    status, shown = node.graph()
    assert (status, shown["status"]) == (200, "healthy")
    sql.probed(0.9, 2)
    sql.probed(0.9, 3)
    status, shown = node.graph()
    assert (status, shown["status"]) == (200, "degraded")
    sql.failed("gone", 4)
    sql.failed("gone", 5)
    status, shown = node.graph()
    assert (status, shown["status"]) == (503, "unhealthy")
    assert node.summary()[0] == 503
