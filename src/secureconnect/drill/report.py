"""The readiness report: one page for people, in Markdown and HTML, and the same as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from secureconnect.drill.scenarios import HOLDS, Finding


def as_data(found: Sequence[Finding]) -> dict[str, object]:
    """`{measured, of, scenarios: [{name, breaks, must_hold, verdict, holds, evidence}]}`."""
    return {
        "measured": sum(one.verdict == "measured" for one in found),
        "of": len(found),
        "scenarios": [
            {
                "name": one.scenario.name,
                "breaks": one.scenario.breaks,
                "must_hold": one.scenario.must_hold,
                "verdict": one.verdict,
                "holds": one.holds,
                "evidence": one.evidence,
            }
            for one in found
        ],
    }


def headline(found: Sequence[Finding]) -> str:
    measured = sum(one.verdict == "measured" for one in found)
    return f"{measured} of {len(found)} scenarios measured; what is not measured is not claimed"


def as_markdown(found: Sequence[Finding]) -> str:
    head = f"# Readiness\n\n{headline(found)}.\n\n| scenario | {' | '.join(HOLDS)} | verdict | evidence |\n"
    return head + "|---" * (len(HOLDS) + 3) + "|\n" + "".join(f"| {' | '.join(_cells(one))} |\n" for one in found)


def as_html(found: Sequence[Finding]) -> str:
    titles = "".join(f"<th>{html.escape(title)}" for title in ("scenario", *HOLDS, "verdict", "evidence"))
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in _cells(one)) for one in found)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Readiness</title>'
        "<style>body{font:1rem/1.5 system-ui;margin:2rem;color-scheme:light dark}"
        "td,th{text-align:left;padding:.3rem .8rem}</style>"
        f"<h1>Readiness</h1><p>{html.escape(headline(found))}.</p><table><tr>{titles}{rows}</table></html>\n"
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


def _cells(one: Finding) -> tuple[str, ...]:
    words = {True: "yes", False: "no", None: "–"}
    return (f"{one.scenario.name}: {one.scenario.breaks}", *(words[one.holds[name]] for name in HOLDS), one.verdict, one.evidence)
