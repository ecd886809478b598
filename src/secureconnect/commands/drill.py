"""`secureconnect drill`: the readiness report, scenario by scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secureconnect.commands.terminal import DONE, FAILED, say, say_json
from secureconnect.config.sources import nearest
from secureconnect.drill import report
from secureconnect.drill.scenarios import SCENARIOS, findings
from secureconnect.errors import BadRequest


def drill(
    *,
    scenario: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    report_folder: Annotated[Path | None, Parameter(name="--report")] = None,
    json: bool = False,
) -> int:
    """Run the failure scenarios and report what was measured. A scenario without an experiment says so.

    Ends with 0 when nothing that was measured fell short, 1 when something did or when a scenario asked for by name is not built.

    Parameters
    ----------
    scenario
        Only this one; may be repeated: redis, cassandra, sql, crash, sockets, push.
    report_folder
        Folder for the report as Markdown, HTML and JSON.
    json
        As JSON.
    """
    names = [one.name for one in SCENARIOS]
    for name in scenario:
        if name not in names:
            near = nearest(name, names)
            raise BadRequest(f"--scenario: there is no {name!r}; {f'did you mean {near}?' if near else ', '.join(names)}")
    found = findings(scenario)
    written = report.write(found, report_folder) if report_folder is not None else []
    if json:
        say_json(report.as_data(found))
    else:
        for one in found:
            say(f"{one.scenario.name:<10} {one.verdict:<10} {one.evidence}")
        say(f"\n{report.headline(found)}.")
        for path in written:
            say(f"report: {path}")
    fell_short = any(False in one.holds.values() for one in found)
    missing = bool(scenario) and any(one.verdict == "not built" for one in found)
    return FAILED if fell_short or missing else DONE
