"""What does a delivery lose when its reader is on another node?

Two nodes on one Redis and one PostgreSQL; 1,000 conversations of 10 sockets each, every socket in 20 of them. All is sent at the
first node; the readers of one half of the conversations are there too, those of the other half at the second node. Each half is
loaded in turn: saturated with 64 messages on the way, and at 100 msg/s, where the latency says what the way over Redis adds.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass

from bench.harness.cache import Missing
from bench.harness.load import Counted, SocketLoad
from bench.harness.measure import Options, middle
from bench.harness.plan import Topology, small_rooms
from bench.harness.report import Cell, Report
from bench.nodes import Pair, pair

ROOMS, SHORT_ROOMS, MEMBERS, ROOMS_PER_SOCKET, CONTENT_BYTES, WINDOW, PACED = 1000, 100, 10, 20, 128, 64, 100
SAME, CROSS = "same node", "cross-node"
SATURATED, CALM = "saturated", f"{PACED} msg/s"


@dataclass(frozen=True, slots=True)
class Taken:
    """One command and what both nodes together spent on it."""

    counted: Counted
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.counted.deliveries / self.counted.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_s * 1e6 / max(self.counted.sent, 1)


Samples = dict[tuple[str, str], list[Taken]]


def run(options: Options) -> None:
    rooms, seconds = (SHORT_ROOMS, 0.7) if options.short else (ROOMS, 3)
    modes = {
        SATURATED: f"saturate seconds={seconds} window={WINDOW} size={CONTENT_BYTES}",
        CALM: f"paced rate={PACED} seconds={seconds} size={CONTENT_BYTES}",
    }
    report = Report(
        "bus",
        f"{rooms:,} channels of {MEMBERS} sockets, read on the sender's node and on another",
        {"rooms": rooms, "members": MEMBERS, "rooms_per_socket": ROOMS_PER_SOCKET, "rounds": options.rounds, **modes},
    )
    topology = small_rooms(rooms, MEMBERS, ROOMS_PER_SOCKET)
    try:
        with pair(report, sockets=2 * topology.sockets) as nodes:
            tell(report, measure(nodes, topology, modes, options.rounds, report))
    except Missing as missing:
        report.missing("two nodes", missing)
    report.save(options.out)


def measure(nodes: Pair, topology: Topology, modes: dict[str, str], rounds: int, report: Report) -> Samples:
    samples: Samples = defaultdict(list)
    with ExitStack() as stack:
        loads: dict[str, SocketLoad] = {}
        for name, reading, first_room in ((SAME, nodes.first, 0), (CROSS, nodes.second, topology.rooms)):
            plan = nodes.plan(topology, readers_at=reading, first_room=first_room)
            loads[name] = SocketLoad(nodes.first.process.port, plan, order=True)
            stack.callback(loads[name].close)
            opened = loads[name].opened()
            if opened.failed:
                report.note(f"{name}: {opened.failed} of {opened.connections} connections failed ({opened.error})")
        for load in loads.values():
            load.run(modes[SATURATED])  # warm
        for _ in range(rounds):
            for name, load in loads.items():
                for mode, command in modes.items():
                    samples[name, mode].append(taken(nodes, load, command))
                    if wrong := samples[name, mode][-1].counted.wrong:
                        report.note(f"{name}, {mode}: {wrong}")
    return samples


def taken(nodes: Pair, load: SocketLoad, command: str) -> Taken:
    both = (nodes.first.process, nodes.second.process)
    before = sum(process.cpu_s() for process in both)
    counted = load.run(command)
    return Taken(counted, sum(process.cpu_s() for process in both) - before)


def tell(report: Report, samples: Samples) -> None:
    rows: list[list[Cell]] = []
    for name in (SAME, CROSS):
        full, calm = samples[name, SATURATED], samples[name, CALM]
        waits = [middle(getattr(one.counted.delivered_us, p) / 1000 for one in calm) for p in ("p50", "p99")]
        costs = [middle(one.cpu_us for one in samples[name, mode]) for mode in (SATURATED, CALM)]
        rows.append([name, middle(one.rate for one in full), *costs, *waits])
    columns = ["readers on", "deliveries/s", "µs/message", f"µs at {CALM}", "p50 ms", "p99 ms"]
    report.table(f"Rate saturated; CPU of both nodes per message; latency at {CALM}", columns, rows)
    report.bars("bus", "deliveries/s, saturated", {SATURATED: {str(row[0]): float(row[1] or 0) for row in rows}})
    ratio = middle(b.rate / a.rate for a, b in zip(samples[SAME, SATURATED], samples[CROSS, SATURATED], strict=True))
    added = middle(
        (b.counted.delivered_us.p50 - a.counted.delivered_us.p50) / 1000
        for a, b in zip(samples[SAME, CALM], samples[CROSS, CALM], strict=True)
    )
    report.target("cross-node deliveries/s against same-node", ratio, ">=", 0.8, unit="x")
    report.target("p50 added by the way over Redis", added, "<=", 2, unit=" ms")
    lost = sum(one.counted.short + one.counted.gaps for taken in samples.values() for one in taken)
    report.target("readers that missed something, or saw a gap", lost, "<=", 0)
