"""What a bench leaves behind: a table, a JSON file, a plot. Targets are printed beside the figures; nothing asserts."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.harness.cache import ROOT, Missing
from bench.harness.processes import LOAD_CORE, SERVER_CORE

Cell = str | float | None


class Report:
    """Everything said here is printed at once and kept for `save`."""

    def __init__(self, name: str, question: str, parameters: Mapping[str, object]) -> None:
        self.name = name
        self._kept: dict[str, object] = {
            "bench": name,
            "question": question,
            "commit": _commit(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, linux {platform.release()}",
            "cores": {"server": SERVER_CORE, "load": LOAD_CORE},
            "parameters": dict(parameters),
        }
        self._versions: dict[str, str] = {}
        self._missing: list[dict[str, str]] = []
        self._notes: dict[str, int] = {}
        self._targets: list[dict[str, object]] = []
        self._tables: dict[str, list[dict[str, Cell]]] = {}
        self._plots: list[tuple[str, str, dict[str, dict[str, float]], bool]] = []
        print(f"\n=== {name}: {question}", flush=True)
        print("    " + ", ".join(f"{key} {value}" for key, value in parameters.items()), flush=True)
        if SERVER_CORE == LOAD_CORE:
            self.note("one core only: load and servers share it, the figures are worth little")

    def version(self, name: str, version: str) -> None:
        self._versions[name] = version

    def missing(self, name: str, missing: Missing) -> None:
        why = f" ({missing.why})" if missing.why else ""
        print(f"missing: {name}: {missing.what}{why}; cure: {missing.command}", flush=True)
        self._missing.append({"name": name, "what": missing.what, "why": missing.why, "command": missing.command})

    def note(self, text: str) -> None:
        """Something a reader must know to believe the figures."""
        if text not in self._notes:
            print(f"note: {text}", flush=True)
        self._notes[text] = self._notes.get(text, 0) + 1

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        kept = [list(row) for row in rows]
        shown = [[_show(cell) for cell in row] for row in kept]
        widths = [max(len(text) for text in column) for column in zip(columns, *shown, strict=True)]
        print(f"\n{title}")
        for line in [list(columns), *shown]:
            cells = [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
            print("  " + "  ".join(cells), flush=True)
        self._tables[title] = [dict(zip(columns, row, strict=True)) for row in kept]

    def target(self, what: str, figure: float | None, bound: str, limit: float, *, unit: str = "") -> None:
        """`bound` is `<=` or `>=`. A figure that could not be measured is said to be so."""
        if figure is None or figure != figure:
            verdict = "not measured"
        else:
            met = figure <= limit if bound == "<=" else figure >= limit
            verdict = f"{_show(figure)}{unit}, {'met' if met else 'NOT met'}"
        print(f"target: {what} {bound} {_show(limit)}{unit}: {verdict}", flush=True)
        self._targets.append({"what": what, "bound": bound, "limit": limit, "unit": unit, "figure": figure, "verdict": verdict})

    def bars(self, title: str, unit: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """`values`: mode -> name -> figure; one panel per mode."""
        self._plots.append((title, unit, {mode: dict(by_name) for mode, by_name in values.items()}, False))

    def lines(self, title: str, unit: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """`values`: series -> x (as text of a number) -> figure; x is drawn on a logarithmic axis."""
        self._plots.append((title, unit, {name: dict(points) for name, points in values.items()}, True))

    def save(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        kept = self._kept | {
            "versions": self._versions,
            "missing": self._missing,
            "notes": self._notes,
            "targets": self._targets,
            "figures": self._tables,
        }
        path = out / f"{self.name}.json"
        path.write_text(json.dumps(kept, indent=1, default=str) + "\n")
        told = [str(path)]
        if self._plots:
            told += self._draw(out)
        print("written: " + ", ".join(told), flush=True)

    def _draw(self, out: Path) -> list[str]:
        try:
            from bench.harness import plot
        except ImportError:
            self.missing("plot", Missing("matplotlib", "pip install 'secureconnect[bench]'"))
            return []
        return [plot.draw(out / f"{self.name}.png", self._plots)]


def _show(cell: Cell) -> str:
    if cell is None or cell != cell:
        return "–"
    if isinstance(cell, str):
        return cell
    if abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.3g}" if cell else "0"


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "none") + ("+changes" if git("status", "--porcelain") else "")
