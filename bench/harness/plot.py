"""The pictures of a report, by matplotlib (extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

OURS_COLOUR, FLOOR_COLOUR, PEER_COLOUR = "#c0392b", "#555555", "#5b8db8"


def draw(path: Path, plots: Sequence[tuple[str, str, dict[str, dict[str, float]], bool]]) -> str:
    panels: list[tuple[str, str, dict[str, dict[str, float]], bool]] = []
    for title, unit, values, is_line in plots:
        if is_line:
            panels.append((title, unit, values, True))
        else:
            panels += [(f"{title}: {mode}", unit, {mode: by_name}, False) for mode, by_name in values.items()]
    longest = max(len(next(iter(values.values()), {})) for _, _, values, _ in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(1 + 5.5 * len(panels), 2 + 0.35 * max(longest, 6)), squeeze=False)
    for axis, (title, unit, values, is_line) in zip(axes[0], panels, strict=True):
        (_lines if is_line else _bars)(axis, unit, values)
        axis.set_title(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return str(path)


def _bars(axis: Axes, unit: str, values: dict[str, dict[str, float]]) -> None:
    (by_name,) = values.values()
    known = {name: value for name, value in by_name.items() if value == value}
    names = list(known)[::-1]
    bars = axis.barh(names, [known[name] for name in names], color=[_colour(name) for name in names])
    axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axis.set_xlabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.15)


def _lines(axis: Axes, unit: str, values: dict[str, dict[str, float]]) -> None:
    for name, points in values.items():
        axis.plot(
            [float(x) for x in points],
            list(points.values()),
            marker="o",
            label=name,
            color=_colour(name) if len(values) > 1 else None,
        )
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_ylabel(unit, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8)


def _colour(name: str) -> str:
    if name.startswith("secureconnect"):
        return OURS_COLOUR
    return FLOOR_COLOUR if name.startswith("C,") else PEER_COLOUR
