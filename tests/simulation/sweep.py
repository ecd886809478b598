"""Run seeds by hand, and find and shrink planted bugs.

python -m tests.simulation.sweep 0 2000            small worlds
python -m tests.simulation.sweep 0 100 --big       three nodes, sixteen clients
python -m tests.simulation.sweep 14 15 --verbose   one seed with its trace
python -m tests.simulation.sweep --bug "retry without key"
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace

import structlog
from tests.simulation.bugs import BUGS
from tests.simulation.chain import BIG, Chain, Plan, run_seed

SHRINK_RUNS_MAX = 60
PLANS = {
    # Its mark is an entry that nobody hears of, so others must not follow it too soon.
    "cancelled between commit and publish": Plan(nodes=2, conversations=4, sends=4, only="slow"),
    # Readers who pause, and more than the wires hold.
    "unbounded queue": Plan(nodes=1, clients=6, conversations=1, sends=40, only="pause"),
}


def quiet() -> None:
    """Faults by the thousand are not worth a line each."""
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def find(bug: str, *, seeds: int) -> tuple[int, list[str], Chain] | None:
    """The first of `seeds` in which the planted bug shows: the seed, its violations, its world."""
    for seed in range(seeds):
        world, chain = run_seed(seed, PLANS.get(bug), bug=bug)
        if world.violations:
            return seed, world.violations, chain
    return None


def shrink(seed: int, bug: str, chain: Chain) -> list[int]:
    """Numbers of the faults that the bug needs: leave out halves, then single ones, as long as it still shows."""
    needed = list(range(1, len(chain.faults) + 1))
    size, runs = max(1, len(needed) // 2), 0
    while runs < SHRINK_RUNS_MAX:
        before = len(needed)
        for begin in range(0, len(needed), size):
            fewer = needed[:begin] + needed[begin + size :]
            skip = frozenset(range(1, len(chain.faults) + 1)) - frozenset(fewer)
            runs += 1
            if run_seed(seed, replace(chain.plan, skip=skip), bug=bug)[0].violations:
                needed = fewer
                break
        if len(needed) == before:
            if size == 1:
                break
            size = max(1, size // 2)
    return needed


def sweep(first: int, last: int, plan: Plan | None, *, verbose: bool) -> int:
    """How many seeds failed; prints them, what was seen, and how late entries were."""
    began, failed, seen, late = time.perf_counter(), 0, Counter[str](), list[float]()
    for seed in range(first, last):
        world, chain = run_seed(seed, plan, keep=verbose)
        seen.update(world.seen.keys())
        late += chain.late
        if world.violations:
            failed += 1
            print(f"seed {seed}: {world.violations[:3]}", flush=True)  # noqa: T201
        if verbose:
            print("\n".join(world.lines), world.digest())  # noqa: T201
    took_s = time.perf_counter() - began
    late.sort()
    slowest = "none"
    if late:
        slowest = f"p50 {late[len(late) // 2]:.3f} s, p99 {late[int(len(late) * 0.99)]:.2f} s, max {late[-1]:.2f} s"
    print(f"{last - first} seeds in {took_s:.0f} s, {failed} failed; late {slowest} (n={len(late)})")  # noqa: T201
    print(f"seeds that saw: {dict(sorted(seen.items()))}")  # noqa: T201
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?", default=100)
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    quiet()
    if given.bug is None:
        return int(sweep(given.first, given.last, BIG if given.big else None, verbose=given.verbose) > 0)
    found = find(given.bug, seeds=given.last)
    if found is None:
        print(f"{given.bug}: not found in {given.last} seeds")  # noqa: T201
        return 1
    seed, violations, chain = found
    needed = shrink(seed, given.bug, chain)
    faults = [chain.faults[number - 1] for number in needed]
    print(f"{given.bug}: seed {seed}, {violations[:2]}; shrunk from {len(chain.faults)} faults to {faults}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
