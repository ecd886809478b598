"""Faults as a plan that is drawn before the run, so that a failing seed can be run again with fewer of them.

Each fault has chance of its own: leaving one out does not change what the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`number` names it in the plan of its seed. `at_s`, `for_s`: virtual seconds. `chance`: the seed of its own draws."""

    number: int
    kind: str
    at_s: float
    for_s: float
    chance: int

    def __str__(self) -> str:
        return f"#{self.number} {self.kind} at {self.at_s:.2f} s for {self.for_s:.2f} s"


def shrink(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool], *, runs_max: int = 200) -> Sequence[Fault]:
    """A smaller list that still `fails`: halves are left out first, then ever smaller parts, until no single one can be."""
    kept, size, runs = list(faults), max(1, len(faults) // 2), 0
    while kept:
        begin, is_smaller = 0, False
        while begin < len(kept):
            if runs >= runs_max:
                return kept
            tried = kept[:begin] + kept[begin + size :]
            runs += 1
            if fails(tried):
                kept, is_smaller = tried, True
            else:
                begin += size
        if size == 1 and not is_smaller:
            break
        if not is_smaller:
            size = max(1, size // 2)
        size = min(size, max(1, len(kept)))
    return kept
