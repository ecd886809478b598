"""The report: every figure is computed from the checks, in all three forms."""

from __future__ import annotations

from dataclasses import replace

from tests.drill.records import good

from secureconnect.drill.oracle import BEHAVIOUR, NO_LOSS, Check, judge
from secureconnect.drill.plot import plot
from secureconnect.drill.report import as_data, as_html, as_markdown, headline
from secureconnect.drill.scenarios import SCENARIOS, Experiment, measured, not_run

REDIS = next(one for one in SCENARIOS if one.name == "redis")
PUSH = next(one for one in SCENARIOS if one.name == "push")


def doctored(name: str, holds: bool | None) -> list[Check]:
    return [replace(check, holds=holds) if check.name == name else check for check in judge(good())]


def test_a_scenario_scores_all_when_every_aspect_of_every_experiment_holds() -> None:
    record = good()
    finding = measured(REDIS, [Experiment("killed", 10.0, judge(record), record)])
    assert finding.percent == 100.0
    assert set(finding.holds.values()) == {True}


def test_one_check_that_falls_short_costs_its_aspect_there_and_in_the_scenario() -> None:
    fine, broken = judge(good()), doctored("acknowledged is stored once", False)
    finding = measured(REDIS, [Experiment("killed", 1.0, fine), Experiment("killed", 10.0, broken)])
    assert finding.percent == 87.5  # one of eight
    assert finding.holds[NO_LOSS] is False
    assert finding.holds[BEHAVIOUR] is True
    assert "1 fell short" in finding.evidence


def test_what_was_not_measured_counts_neither_way() -> None:
    checks = [replace(check, holds=None) if check.aspect == NO_LOSS else check for check in judge(good())]
    finding = measured(REDIS, [Experiment("killed", 1.0, checks)])
    assert finding.percent == 100.0
    assert finding.holds[NO_LOSS] is None
    assert as_data([finding, not_run(PUSH)])["percent"] == 100.0
    assert "1 of 2 scenarios measured" in headline([finding, not_run(PUSH)])


def test_all_forms_name_the_experiment_and_each_check() -> None:
    record = good()
    finding = measured(REDIS, [Experiment("killed", 10.0, judge(record), record)])
    markdown, page = as_markdown([finding]), as_html([finding])
    for check in judge(record):
        assert check.name in markdown
        assert check.name in page
    assert "redis: killed, 10 s" in markdown
    assert page.count("<svg") == 1


def test_a_plot_shows_the_fault_and_what_failed() -> None:
    record = good()
    calm = plot(record, "calm")
    record.ops[:] = [replace(op, status=503) for op in record.ops]
    assert plot(record, "storm").count('fill="#d62728"') > calm.count('fill="#d62728"') > 0
