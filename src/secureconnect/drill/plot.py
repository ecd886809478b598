"""One experiment as a picture: latency of every request, and the share that failed, over the time of the fault. Inline SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Final

from secureconnect.drill.record import Record

WIDTH, HEIGHT, LOSS_HEIGHT, EDGE = 860, 180, 60, 46
"""In units of the picture."""
FASTEST_S, SLOWEST_S = 0.001, 40.0
BIN_S: Final = 0.5
DOTS_MAX: Final = 3000
COLOURS: Final = {"send": "#1f77b4", "history": "#2ca02c", "profile": "#9467bd", "ping": "#8c8c8c", "login": "#e377c2",
                  "refresh": "#bcbd22", "logout": "#17becf", "poll": "#ff7f0e"}  # fmt: skip


def plot(record: Record, title: str) -> str:
    """The time of the fault is shaded; 0 s is its beginning."""
    times = [op.at_s for op in record.ops] or [record.began_s]
    first, last = record.began_s or min(times), max(max(times), record.fault.ended_s) + 1.0

    def x(at_s: float) -> float:
        return EDGE + (at_s - first) / (last - first) * (WIDTH - EDGE)

    shade = f'<rect x="{x(record.fault.began_s):.1f}" y="0" width="{x(record.fault.ended_s) - x(record.fault.began_s):.1f}" '
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + LOSS_HEIGHT + 30}" role="img" aria-label="{html.escape(title)}">',
        f'{shade} height="{HEIGHT + LOSS_HEIGHT + 10}" fill="#d62728" opacity=".12"/>',
    ]
    for seconds, label in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")):
        parts.append(
            f'<line x1="{EDGE}" x2="{WIDTH}" y1="{_y(seconds):.1f}" y2="{_y(seconds):.1f}" stroke="#8884"/>'
            f'<text x="0" y="{_y(seconds) + 4:.1f}">{label}</text>'
        )
    ops = [op for op in record.ops if op.at_s >= first]
    step = max(1, math.ceil(len(ops) / DOTS_MAX))
    for op in [op for number, op in enumerate(ops) if number % step == 0 or not op.is_good]:
        colour = COLOURS.get(op.kind, "#444") if op.is_good else "#d62728"
        took_s = max(FASTEST_S, op.took_s - op.wait_s)
        parts.append(f'<circle cx="{x(op.at_s):.1f}" cy="{_y(took_s):.1f}" r="1.6" fill="{colour}"/>')
    for at_s, share in _loss(record, first, last):
        top = HEIGHT + 10 + LOSS_HEIGHT * (1 - share)
        width = (WIDTH - EDGE) * BIN_S / (last - first)
        parts.append(
            f'<rect x="{x(at_s):.1f}" y="{top:.1f}" width="{width:.1f}" height="{LOSS_HEIGHT * share:.1f}" fill="#d62728"/>'
        )
    parts.append(f'<text x="0" y="{HEIGHT + 20}">failed</text>')
    begins = math.ceil((first - record.fault.began_s) / 5) * 5
    parts += [
        f'<text x="{x(record.fault.began_s + second):.1f}" y="{HEIGHT + LOSS_HEIGHT + 26}">{second} s</text>'
        for second in range(begins, int(last - record.fault.began_s) + 1, 5)
    ]
    return "".join(parts) + "</svg>"


def _y(seconds: float) -> float:
    """Logarithmic, the fastest at the bottom."""
    share = math.log(min(SLOWEST_S, max(FASTEST_S, seconds)) / FASTEST_S) / math.log(SLOWEST_S / FASTEST_S)
    return HEIGHT - share * (HEIGHT - 10)


def _loss(record: Record, first: float, last: float) -> Iterator[tuple[float, float]]:
    """The share of the requests begun in each half second that were not answered well."""
    for number in range(int((last - first) / BIN_S) + 1):
        begins = first + number * BIN_S
        found = [op for op in record.ops if begins <= op.at_s < begins + BIN_S]
        if found:
            yield begins, sum(not op.is_good for op in found) / len(found)
