"""`python -m bench [NAME …] [--short] [--out DIR] [--rounds N]`: runs the benches named, or all of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from bench.harness import cache
from bench.harness.measure import ROUNDS, Options
from bench.harness.processes import LOAD_CORE

NAMES = ("start", "fanout", "burst", "rooms", "roundtrip", "http", "slow", "idle", "storm", "stores", "bus", "failover", "scale")
"""In this order: what starts fast and says most comes first."""


def main() -> None:
    arguments = parse()
    cache.allow_install = not arguments.no_install
    os.sched_setaffinity(0, {LOAD_CORE})  # this process mostly waits; let it not wait on the servers' core
    rounds = arguments.rounds or (3 if arguments.short else ROUNDS)
    options = Options(arguments.short, arguments.out, rounds, tuple(arguments.only or ()), arguments.full)
    broken = [name for name in arguments.names or NAMES if not ran(name, options)]
    if broken:
        sys.exit(f"could not be measured: {', '.join(broken)}")


def ran(name: str, options: Options) -> bool:
    """One bench; False when it broke down (a load client that ended, say). The next one still gets its turn."""
    began = time.monotonic()
    try:
        import_module(f"bench.{name}").run(options)
    except (OSError, subprocess.SubprocessError):
        traceback.print_exc()
        return False
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return True


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="One bench, one question; see performance.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=" ".join(NAMES))
    parser.add_argument("--short", action="store_true", help="few peers, little time: a smoke test, not figures of record")
    parser.add_argument("--full", action="store_true", help="the sizes that take many minutes too (scale)")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder for JSON and plots")
    parser.add_argument("--rounds", type=int, help=f"rounds over all servers ({ROUNDS}; short form 3)")
    parser.add_argument("--only", action="append", metavar="PART", help="only servers whose name contains this (again for more)")
    parser.add_argument("--no-install", action="store_true", help="fetch nothing: what is not in bench/.cache is missing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
