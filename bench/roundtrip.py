"""How fast does a message get from its sender to the disk and back (ack), and to the other members?

200 senders in 50 conversations of 10 members; every message is on disk (`synchronous=FULL`) before its acknowledgement. First
as fast as one message on the way per sender allows, then at half of that rate in an open loop, where latency counts from the
planned moment. The same chat written the usual way stands beside it, on the same kind of database with the same fsync.
"""

from __future__ import annotations

from collections import defaultdict

from bench.harness.chats import chat_peers
from bench.harness.contenders import OURS, Contender
from bench.harness.measure import Options, Runner, Sample, lineup, middle, under_load
from bench.harness.plan import Topology
from bench.harness.report import Cell, Report
from bench.ours import Ours

CONVERSATIONS, MEMBERS, SENDERS, CONTENT_BYTES = 50, 10, 200, 128


def topology() -> Topology:
    per_room = SENDERS // CONVERSATIONS
    listeners = tuple((room,) for room in range(CONVERSATIONS) for _ in range(MEMBERS - per_room))
    return Topology(CONVERSATIONS, listeners, senders=tuple(n % CONVERSATIONS for n in range(SENDERS)))


def run(options: Options) -> None:
    seconds = 1.5 if options.short else 3
    report = Report(
        "roundtrip",
        f"{SENDERS} senders in {CONVERSATIONS} conversations of {MEMBERS}: send, stored, acknowledged, delivered",
        {"content_bytes": CONTENT_BYTES, "seconds": seconds, "rounds": options.rounds, "half load": "of each server's own rate"},
    )
    contenders: list[Contender] = [*chat_peers(), Ours()]
    chosen = options.chosen(contenders, short=[one.name for one in contenders])
    place = topology()
    full: dict[str, list[Sample]] = defaultdict(list)
    half: dict[str, list[Sample]] = defaultdict(list)
    with lineup(chosen, report, sockets=place.sockets) as up, under_load(up, place, report, order=(OURS,)) as runners:
        for runner in runners:
            runner.run(f"closed seconds=0.5 size={CONTENT_BYTES}")
        for _ in range(options.rounds):
            for runner in runners:
                one_round(runner, full[runner.name], half[runner.name], seconds, report)
    tell(report, full, half)
    report.save(options.out)


def one_round(runner: Runner, full: list[Sample], half: list[Sample], seconds: float, report: Report) -> None:
    full.append(runner.run(f"closed seconds={seconds} size={CONTENT_BYTES}"))
    rate = full[-1].counted.acks / full[-1].counted.seconds / 2
    half.append(runner.run(f"paced rate={rate:.0f} seconds={seconds} size={CONTENT_BYTES}"))
    for sample in (full[-1], half[-1]):
        if sample.counted.wrong:
            report.note(f"{runner.name}: {sample.counted.wrong}")


def tell(report: Report, full: dict[str, list[Sample]], half: dict[str, list[Sample]]) -> None:
    per_core = {name: middle(s.counted.acks / s.cpu_s for s in samples) for name, samples in full.items()}
    p99 = {name: middle(s.counted.delivered_us.p99 / 1000 for s in samples) for name, samples in half.items()}
    rows: list[list[Cell]] = []
    for name, samples in full.items():
        calm = half[name]
        rows.append(
            [
                name,
                middle(s.counted.acks / s.counted.seconds for s in samples),
                per_core[name],
                1e6 / per_core[name],
                middle(s.counted.acked_us.p50 / 1000 for s in samples),
                middle(s.counted.sent / s.counted.seconds for s in calm),
                *(middle(getattr(s.counted.acked_us, p) / 1000 for s in calm) for p in ("p50", "p99")),
                *(middle(getattr(s.counted.delivered_us, p) / 1000 for s in calm) for p in ("p50", "p99")),
            ]
        )
    columns = [
        "server",
        "stored/s",
        "per core",
        "CPU µs",
        "ack p50 ms",
        "half load/s",
        "ack p50",
        "ack p99",
        "delivered p50",
        "delivered p99 ms",
    ]
    report.table("Full: stored messages per second, and per CPU second; half load: latency in ms", columns, rows)
    report.bars("roundtrip", "stored messages per CPU second", {"stored per core": per_core})
    report.bars("roundtrip at half load", "ms", {"delivered p99": p99})
    ours = per_core.get(OURS)
    for name, theirs in per_core.items():
        if name != OURS:
            report.target(f"stored per core, against {name}", ours / theirs if ours else None, ">=", 3, unit="x")
    report.target("stored messages per second and core", ours, ">=", 4000)
    report.target("delivered p99 at half load", p99.get(OURS), "<=", 25, unit=" ms")
