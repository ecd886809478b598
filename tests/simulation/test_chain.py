"""The real chain on thousands of bad days: a fixed corpus in CI, more by `python -m tests.simulation.sweep`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.bugs import BUGS
from tests.simulation.chain import BIG, FAULTS, run_seed
from tests.simulation.sweep import find, quiet, shrink

SMALL_SEEDS = 250
BIG_SEEDS = 8
SEEDS_TO_A_BUG = 300
FAULTS_LEFT_MAX = 5
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


@pytest.mark.parametrize("seed", range(3))
def test_a_few_seeds_are_clean(seed: int) -> None:
    world, _ = run_seed(seed)
    assert world.violations == [], f"python -m tests.simulation.sweep {seed} {seed + 1} --verbose"


@pytest.mark.slow
def test_the_small_corpus_is_clean_and_saw_every_fault() -> None:
    failed, seen = {}, dict[str, None]()
    for seed in range(SMALL_SEEDS):
        world, _ = run_seed(seed)
        seen |= dict.fromkeys(world.seen)
        if world.violations:
            failed[seed] = world.violations[:2]
    assert failed == {}, "python -m tests.simulation.sweep SEED SEED+1 --verbose"
    assert [kind for kind in FAULTS if f"fault {kind}" not in seen] == []
    assert {"append half", "append zombie", "append hang", "read fail", "bus drop", "crash", "poll"} <= set(seen)


@pytest.mark.slow
def test_the_big_corpus_is_clean() -> None:
    failed = {}
    for seed in range(BIG_SEEDS):
        world, _ = run_seed(seed, BIG)
        if world.violations:
            failed[seed] = world.violations[:2]
    assert failed == {}, "python -m tests.simulation.sweep SEED SEED+1 --big --verbose"


def test_the_same_seed_is_the_same_run() -> None:
    first, second = run_seed(5)[0], run_seed(5)[0]
    assert first.digest() == second.digest()
    assert run_seed(6)[0].digest() != first.digest()


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_hash_of_text() -> None:
    code = (
        "from tests.simulation.sweep import quiet; from tests.simulation.chain import run_seed; quiet(); "
        "print(run_seed(7)[0].digest())"
    )
    digests = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        digests.append(done.stdout)
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_shrunk(bug: str) -> None:
    found = find(bug, seeds=SEEDS_TO_A_BUG)
    assert found is not None, f"{bug} hides from {SEEDS_TO_A_BUG} seeds"
    seed, _, chain = found
    assert len(shrink(seed, bug, chain)) <= FAULTS_LEFT_MAX
