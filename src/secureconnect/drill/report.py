"""The readiness report: one page for people, in Markdown and HTML (with plots), and the same as JSON; all computed."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from secureconnect.drill.plot import COLOURS, plot
from secureconnect.drill.scenarios import HOLDS, Experiment, Finding

WORDS = {True: "yes", False: "no", None: "–"}
COLUMNS = (*HOLDS, "verdict", "readiness", "evidence")


def as_data(found: Sequence[Finding]) -> dict[str, object]:
    """`{measured, of, percent, scenarios: [{name, breaks, must_hold, verdict, percent, holds, evidence, experiments: [{fault,
    for_s, holds, checks: [{name, aspect, holds, evidence}]}]}]}`. `percent` null: nothing was measured."""
    return {
        "measured": sum(one.verdict == "measured" for one in found),
        "of": len(found),
        "percent": _percent(found),
        "scenarios": [
            {
                "name": one.scenario.name,
                "breaks": one.scenario.breaks,
                "must_hold": one.scenario.must_hold,
                "verdict": one.verdict,
                "percent": _rounded(one.percent),
                "holds": one.holds,
                "evidence": one.evidence,
                "experiments": [_experiment(each) for each in one.experiments],
            }
            for one in found
        ],
    }


def headline(found: Sequence[Finding]) -> str:
    measured = sum(one.verdict == "measured" for one in found)
    percent = _percent(found)
    score = "" if percent is None else f"readiness of what was measured {percent:g} %; "
    return f"{score}{measured} of {len(found)} scenarios measured; what is not measured is not claimed"


def as_markdown(found: Sequence[Finding]) -> str:
    lines = [f"# Readiness\n\n{headline(found)}.\n\n| scenario | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {' | '.join(_cells(one))} |" for one in found]
    for one in found:
        for experiment in one.experiments:
            lines += ["", f"## {_title(one, experiment)}", "", "| check | aspect | holds | evidence |", "|---|---|---|---|"]
            lines += [f"| {' | '.join(row)} |" for row in _rows(experiment)]
    return "\n".join(lines) + "\n"


def as_html(found: Sequence[Finding]) -> str:
    body = [f"<h1>Readiness</h1><p>{html.escape(headline(found))}.</p>", _table(("scenario", *COLUMNS), map(_cells, found))]
    if any(one.experiments for one in found):
        key = ", ".join(f'<span style="color:{colour}">{kind}</span>' for kind, colour in COLOURS.items())
        body.append(f"<p>Latency of each request: {key}; red: not answered well. The time of the fault is shaded.</p>")
    for one in found:
        for experiment in one.experiments:
            body.append(f"<h2>{html.escape(_title(one, experiment))}</h2>")
            if experiment.record is not None:
                body.append(plot(experiment.record, _title(one, experiment)))
            body.append(_table(("check", "aspect", "holds", "evidence"), _rows(experiment)))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Readiness</title>'
        "<style>body{font:1rem/1.5 system-ui;margin:2rem;color-scheme:light dark}"
        "svg{max-width:60rem;font-size:11px;fill:currentColor}"
        "td,th{text-align:left;padding:.3rem .8rem;vertical-align:top}</style>" + "".join(body) + "</html>\n"
    )


def write(found: Sequence[Finding], folder: Path) -> list[Path]:
    """Write the three forms into `folder`, which is made. Blocking. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "report.md": as_markdown(found),
        "report.html": as_html(found),
        "report.json": json.dumps(as_data(found), ensure_ascii=False, indent=2) + "\n",
    }
    written = []
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def _experiment(one: Experiment) -> dict[str, object]:
    checks = [{"name": c.name, "aspect": c.aspect, "holds": c.holds, "evidence": c.evidence} for c in one.checks]
    return {"fault": one.fault, "for_s": one.for_s, "holds": one.holds(), "checks": checks}


def _percent(found: Sequence[Finding]) -> float | None:
    """The mean of the scenarios that were measured."""
    known = [one.percent for one in found if one.percent is not None]
    return _rounded(sum(known) / len(known)) if known else None


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 1)


def _title(one: Finding, experiment: Experiment) -> str:
    return f"{one.scenario.name}: {experiment.fault}, {experiment.for_s:g} s"


def _cells(one: Finding) -> tuple[str, ...]:
    percent = "–" if one.percent is None else f"{_rounded(one.percent):g} %"
    name = f"{one.scenario.name}: {one.scenario.breaks}"
    return (name, *(WORDS[one.holds[aspect]] for aspect in HOLDS), one.verdict, percent, one.evidence)


def _rows(experiment: Experiment) -> Iterator[tuple[str, ...]]:
    return ((check.name, check.aspect, WORDS[check.holds], check.evidence) for check in experiment.checks)


def _table(titles: Sequence[str], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{html.escape(title)}" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"
