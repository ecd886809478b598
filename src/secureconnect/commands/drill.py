"""`secureconnect drill`: the readiness report, scenario by scenario."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secureconnect.commands.terminal import DONE, FAILED, complain, say, say_json
from secureconnect.config.sources import nearest
from secureconnect.drill import report
from secureconnect.drill.scenarios import BUILT, SCENARIOS, Finding, Scenario, measured, not_run, wanted
from secureconnect.errors import BackendDown, BadRequest


def drill(
    *,
    scenario: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    report_folder: Annotated[Path | None, Parameter(name="--report")] = None,
    short: bool = False,
    list_only: Annotated[bool, Parameter(name="--list")] = False,
    json: bool = False,
) -> int:
    """Break real servers under load and report what was measured. A scenario without an experiment says so.

    It starts its own PostgreSQL, Redis and nodes on this machine; all of it takes half an hour, `--short` some minutes.
    Ends with 0 when nothing that was measured fell short; with 1 when something did, when a scenario asked for by name is not
    built, or when servers are missing.

    Parameters
    ----------
    scenario
        Only this one; may be repeated: redis, cassandra, sql, crash, sockets, push.
    report_folder
        Folder for the report as Markdown, HTML and JSON.
    short
        Few faults, each for some seconds.
    list_only
        Run nothing: which scenarios have experiments.
    json
        As JSON.
    """
    names = [one.name for one in SCENARIOS]
    for name in scenario:
        if name not in names:
            near = nearest(name, names)
            raise BadRequest(f"--scenario: there is no {name!r}; {f'did you mean {near}?' if near else ', '.join(names)}")
    found = [not_run(one) if list_only or one.name not in BUILT else _run(one, short) for one in wanted(scenario)]
    written = report.write(found, report_folder) if report_folder is not None else []
    if json:
        say_json(report.as_data(found))
    else:
        for one in found:
            say(f"{one.scenario.name:<10} {one.verdict:<12} {one.evidence}")
        say(f"\n{report.headline(found)}.")
        for path in written:
            say(f"report: {path}")
    return _code(found, is_named=bool(scenario), is_list=list_only)


def _code(found: Sequence[Finding], *, is_named: bool, is_list: bool) -> int:
    fell_short = any(False in one.holds.values() for one in found)
    missing = any((one.verdict == "not measured" and not is_list) or (one.verdict == "not built" and is_named) for one in found)
    return FAILED if fell_short or missing else DONE


def _run(scenario: Scenario, short: bool) -> Finding:
    try:
        import trio

        from secureconnect.drill.running import FULL, SHORT, run_scenario
    except ModuleNotFoundError as error:
        return _missing(scenario, f"needs {error.name}; pip install 'secureconnect[load,postgres,redis]'")
    plan = (SHORT if short else FULL)[scenario.name]
    _tell(f"{scenario.name}: {len(plan.faults) * len(plan.outages_s)} experiments")
    try:
        experiments = trio.run(partial(run_scenario, plan, told=_tell))
    except BackendDown as error:
        return _missing(scenario, str(error))
    return measured(scenario, experiments)


def _tell(line: str) -> None:
    """Progress, for people."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _missing(scenario: Scenario, why: str) -> Finding:
    complain(f"drill: {scenario.name}: {why}")
    return not_run(scenario, why)
