"""Rounds: every server is up, each is measured in turn, then the next round; medians at the end.

Ratios are taken inside a round, against the floor of that round, and then the median of the ratios: the machine's speed moves
between rounds, much less within one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.harness.cache import Missing
from bench.harness.contenders import SHORT, Contender, Server
from bench.harness.load import Counted, Opened, SocketLoad
from bench.harness.plan import Topology
from bench.harness.report import Report

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """`short`: few peers, little time: a smoke test, not figures of record. `full`: the largest sizes too.
    `only`: measure those whose names contain one of these."""

    short: bool = False
    out: Path = Path("bench/results")
    rounds: int = ROUNDS
    only: tuple[str, ...] = ()
    full: bool = False

    def chosen(self, contenders: Iterable[Contender], *, short: Collection[str] = SHORT) -> list[Contender]:
        """Those to measure; `short`: who is left in the short form, unless `only` says it."""
        kept = [c for c in contenders if self.only or not self.short or c.name in short]
        return [c for c in kept if not self.only or any(part in c.name for part in self.only)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One command's outcome and what the server's process tree spent on it."""

    cpu_s: float
    counted: Counted

    @property
    def cpu_us(self) -> float:
        """CPU per delivery."""
        return self.cpu_s * 1e6 / self.counted.deliveries if self.counted.deliveries else float("nan")


@dataclass(slots=True)
class Runner:
    """A server under its load."""

    name: str
    server: Server
    load: SocketLoad
    opened: Opened
    open_cpu_s: float

    def run(self, command: str) -> Sample:
        before = self.server.process.cpu_s()
        counted = self.load.run(command)
        return Sample(self.server.process.cpu_s() - before, counted)


@contextmanager
def lineup(contenders: Sequence[Contender], report: Report, *, sockets: int) -> Iterator[list[tuple[Contender, Server]]]:
    """All that can be had, up side by side; what cannot is told to the report."""
    with ExitStack() as stack:
        up: list[tuple[Contender, Server]] = []
        for contender in contenders:
            try:
                server = contender.start(sockets=sockets)
                report.version(contender.name, contender.version())
            except Missing as missing:
                report.missing(contender.name, missing)
                continue
            stack.callback(server.stop)
            up.append((contender, server))
        yield up


@contextmanager
def under_load(
    up: Sequence[tuple[Contender, Server]], topology: Topology, report: Report, *, parallel: int = 64, order: Sequence[str] = ()
) -> Iterator[list[Runner]]:
    """The topology opened on each of them. `order`: names whose events carry dense sequences, to be checked."""
    with ExitStack() as stack:
        runners: list[Runner] = []
        for contender, server in up:
            plan = server.plan(topology)
            before = server.process.cpu_s()
            load = SocketLoad(server.process.port, plan, parallel=parallel, order=contender.name in order)
            stack.callback(load.close)
            opened = load.opened()
            if opened.ready < opened.connections:
                lost = opened.connections - opened.ready
                report.note(f"{contender.name}: {lost} of {opened.connections} connections failed ({opened.error}); left out")
                continue
            runners.append(Runner(contender.name, server, load, opened, server.process.cpu_s() - before))
        yield runners


@dataclass(slots=True)
class Series:
    """Samples by server and mode, in the order of rounds."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, name: str, mode: str, sample: Sample, report: Report) -> None:
        self.samples[name][mode].append(sample)
        if sample.counted.wrong:
            report.note(f"{name}, {mode}: {sample.counted.wrong}")

    def names(self) -> list[str]:
        return list(self.samples)

    def cpu_us(self, name: str, mode: str) -> float:
        return middle(sample.cpu_us for sample in self.samples[name][mode])

    def times(self, name: str, mode: str, than: str, than_mode: str | None = None) -> float | None:
        """CPU per delivery as a multiple of another's, round by round. None: the other was not measured."""
        mine, other = self.samples[name][mode], self.samples.get(than, {}).get(than_mode or mode, [])
        if not mine or not other:
            return None
        return middle(a.cpu_us / b.cpu_us for a, b in zip(mine, other, strict=False))

    def middle_of(self, name: str, mode: str, figure: str) -> float:
        """The median of a figure of the samples: `rate`, `p50`, `p99`, `frame_bytes`, `load_cpu_s`."""
        return middle(_figure(sample, figure) for sample in self.samples[name][mode])


def _figure(sample: Sample, figure: str) -> float:
    counted = sample.counted
    match figure:
        case "rate":
            return counted.deliveries / counted.seconds
        case "p50":
            return counted.delivered_us.p50
        case "p99":
            return counted.delivered_us.p99
        case "frame_bytes":
            return counted.bytes / counted.deliveries if counted.deliveries else float("nan")
        case "load_cpu_s":
            return counted.load_cpu_s
        case _:
            raise ValueError(figure)


def middle(values: Iterable[float]) -> float:
    kept = [value for value in values if value == value]
    return median(kept) if kept else float("nan")
