"""Run seeds by hand, and find and shrink planted bugs.

python -m tests.simulation.sweep 0 2000            small worlds
python -m tests.simulation.sweep 0 100 --big       three nodes, eighteen people
python -m tests.simulation.sweep 0 100 --quiet     little is said, and not repeated; --busy: much
python -m tests.simulation.sweep 14 15 --verbose   one seed with its trace
python -m tests.simulation.sweep 0 50 --verbose    the share of seeds in which each state was seen
python -m tests.simulation.sweep --bug "retry without key"

The last lines are the commands that show the failures again; `--shrink` also names the faults that the first one needs.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.simulation.bugs import BUGS
from tests.simulation.simulator import BIG, BUSY, QUIET, SMALL, Simulator, Size, run_seed

from secureconnect.testing.fault_plan import Fault, shrink
from secureconnect.testing.world import World

SIZES = {"cancelled between commit and publish": QUIET, "unbounded queue": BUSY, "hole never repaired after a lost digest": QUIET}
"""Where to look for a bug that shows mostly there."""
COLLECT_EVERY = 20
"""Seeds between two collections of garbage; none runs inside a seed."""
SHRINK_RUNS_MAX = 80
FAILED_SHOWN = 12


@dataclass
class Found:
    """A seed that failed. `kind`: what its first violation is called."""

    seed: int
    size: Size
    bug: str | None
    violations: Sequence[str]
    plan: Sequence[Fault]

    @property
    def kind(self) -> str:
        return self.violations[0].partition(":")[0]

    def shrunk(self) -> Sequence[Fault]:
        """The fewest faults with which this seed still fails in the same way."""

        def fails(faults: Sequence[Fault]) -> bool:
            world, _ = run_seed(self.seed, self.size, bug=self.bug, faults=faults)
            return any(violation.startswith(self.kind) for violation in world.violations)

        return shrink(self.plan, fails, runs_max=SHRINK_RUNS_MAX)


def find(bug: str, seeds: Iterable[int]) -> Found | None:
    """The first of `seeds` in which the planted bug shows."""
    size = SIZES.get(bug, SMALL)
    for seed in seeds:
        world, sim = run_seed(seed, size, bug=bug)
        if world.violations:
            return Found(seed, size, bug, world.violations, sim.plan)
    return None


@dataclass
class Tally:
    """What a sweep has seen."""

    seeds: int = 0
    virtual_s: float = 0.0
    acked: int = 0
    lateness_s: list[float] = field(default_factory=list)
    longest_call_s: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    """In how many seeds each state was seen."""

    def add(self, world: World, sim: Simulator) -> None:
        self.seeds += 1
        self.virtual_s += world.now()
        self.acked += sum(len(person.outgoing.acked) for person in sim.people)
        self.lateness_s += sim.checker.lateness
        for one in (sim.cluster.log, sim.cluster.sql, sim.cluster.table):
            self.longest_call_s[one.name] = max(self.longest_call_s.get(one.name, 0.0), one.longest_s)
        self.seen.update(world.seen.keys())

    def report(self, seconds: float, *, verbose: bool) -> str:
        late_s = sorted(self.lateness_s) or [0.0]
        calls = ", ".join(f"{name} {longest_s:.3f} s" for name, longest_s in self.longest_call_s.items())
        lines = [
            f"{self.seeds} seeds in {seconds:.1f} s ({self.seeds / seconds * 60:.0f} a minute, "
            f"{self.virtual_s / seconds:.0f} virtual s a second)",
            f"{self.acked} messages acknowledged, {len(late_s)} arrivals; longest store calls {calls}",
            f"late p50 {_share(late_s, 0.5):.3f} s, p99 {_share(late_s, 0.99):.2f} s, max {late_s[-1]:.2f} s",
        ]
        if verbose:
            lines += [f"{count / self.seeds:7.1%} {name}" for name, count in sorted(self.seen.items())]
        return "\n".join(lines)


def _share(ascending: Sequence[float], share: float) -> float:
    return ascending[int(len(ascending) * share)]


def sweep(
    first: int, last: int, size: Size = SMALL, *, verbose: bool = False, limit_s: float = math.inf
) -> tuple[Tally, list[Found]]:
    """Run seeds, for so many real seconds at the most; `verbose` also prints the trace of a single one."""
    tally, failed, began_s = Tally(), list[Found](), time.perf_counter()
    for seed in range(first, last):
        if time.perf_counter() - began_s > limit_s:
            break
        world, sim = run_seed(seed, size, keep_log=verbose and last - first == 1)
        tally.add(world, sim)
        if world.violations:
            failed.append(Found(seed, size, None, world.violations, sim.plan))
            print(f"seed {seed}", *world.violations[:3], sep="\n    ", flush=True)  # noqa: T201
        if world.log:
            print("\n".join([*world.log, *map(str, sim.faults), world.task_tree, *sim.exceptions, world.digest()]))  # noqa: T201
        if tally.seeds % COLLECT_EVERY == 0:
            del world, sim
            gc.collect()
    return tally, failed


_SIZES = {"": SMALL, "--big": BIG, "--quiet": QUIET, "--busy": BUSY}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?", default=100)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--big", dest="size", action="store_const", const="--big", default="")
    size.add_argument("--busy", dest="size", action="store_const", const="--busy", help="worlds in which much is said")
    size.add_argument("--quiet", dest="size", action="store_const", const="--quiet", help="worlds in which little is said")
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    began_s = time.perf_counter()
    if given.bug is not None:
        return _hunt(given.bug, range(given.first, given.last))
    tally, failed = sweep(given.first, given.last, _SIZES[given.size], verbose=given.verbose, limit_s=given.seconds)
    print(tally.report(time.perf_counter() - began_s, verbose=given.verbose))  # noqa: T201
    print(f"{len(failed)} failed")  # noqa: T201
    for found in failed[:FAILED_SHOWN]:
        print(f"python -m tests.simulation.sweep {found.seed} {found.seed + 1} {given.size} --verbose")  # noqa: T201
    if given.shrink and failed:
        print("needs", *failed[0].shrunk(), sep="\n    ")  # noqa: T201
    return int(bool(failed))


def _hunt(bug: str, seeds: range) -> int:
    found = find(bug, seeds)
    if found is None:
        print(f"{bug}: not found in {len(seeds)} seeds")  # noqa: T201
        return 1
    print(f"{bug}: seed {found.seed}, {found.violations[:2]}; of {len(found.plan)} faults it needs", flush=True)  # noqa: T201
    print("", *found.shrunk(), sep="\n    ")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
