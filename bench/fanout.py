"""What does one delivery cost when one channel has 1,000 and 10,000 subscribers?

Every server does the same for each message: takes it from a publisher's socket and gives it to everyone in the room; ours also
authenticates, numbers, stores (fsync), envelopes and counts it. `saturated`: as fast as four messages on the way allow, so a
server that joins what a turn brings can join four; with 32 on the way it can join more (no target, for the picture).
`5 msg/s`: each message meets an idle server.
"""

from __future__ import annotations

from bench.harness.contenders import CENTRIFUGO, FLOOR, FLOOR_JOIN, OURS, SHORT, Contender, room_peers
from bench.harness.measure import Options, Runner, Series, lineup, under_load
from bench.harness.plan import one_room
from bench.harness.report import Cell, Report
from bench.ours import Ours

CONTENT_BYTES = 128
WINDOW = 4  # messages on the way; the C program that joins then costs 0.3 of single sends, as in performance.md
OUR_FRAME = "C, single sends of our frame's size"
SATURATED, DEEP, PACED = "saturated", "32 on the way", "5 msg/s"


def run(options: Options) -> None:
    for subscribers in (1000,) if options.short else (1000, 10_000):
        measure(options, subscribers)


def commands(options: Options) -> dict[str, str]:
    seconds, paced = (0.7, 2) if options.short else (2, 4)
    return {
        SATURATED: f"saturate seconds={seconds} window={WINDOW} size={CONTENT_BYTES}",
        DEEP: f"saturate seconds={seconds / 2} window=32 size={CONTENT_BYTES}",
        PACED: f"paced rate=5 seconds={paced} size={CONTENT_BYTES}",
    }


def measure(options: Options, subscribers: int) -> None:
    modes = commands(options)
    report = Report(
        f"fanout-{subscribers}",
        f"what does a delivery cost in a channel of {subscribers:,} sockets?",
        {"subscribers": subscribers, "content_bytes": CONTENT_BYTES, "window": WINDOW, "rounds": options.rounds, **modes},
    )
    series = Series()
    topology = one_room(subscribers, publishers=32)
    with (
        lineup(contenders(options, subscribers), report, sockets=topology.sockets) as up,
        under_load(up, topology, report, order=(OURS,)) as runners,
    ):
        for runner in runners:
            runner.run(modes[SATURATED])  # warm: code paths, buffers, caches
        for _ in range(options.rounds):
            for runner in runners:
                for mode, command in modes.items():
                    series.add(runner.name, mode, runner.run(command), report)
            floor_of_our_size(runners, series, modes, report)
        tell(report, series, list(modes), {r.name: r.open_cpu_s * 1e6 / r.opened.connections for r in runners})
    report.save(options.out)


def contenders(options: Options, subscribers: int) -> list[Contender]:
    everyone: list[Contender] = [*room_peers(), Ours()]
    if subscribers > 1000:
        everyone = [one for one in everyone if one.name in SHORT]
    return options.chosen(everyone)


def floor_of_our_size(runners: list[Runner], series: Series, modes: dict[str, str], report: Report) -> None:
    """The floor once more, sending as many bytes as our envelope makes of the same content."""
    floor = next((runner for runner in runners if runner.name == FLOOR), None)
    if floor is None or OURS not in series.samples:
        return
    size = round(series.middle_of(OURS, SATURATED, "frame_bytes"))
    for mode, command in modes.items():
        sample = floor.run(command.replace(f"size={CONTENT_BYTES}", f"size={size}"))
        series.add(OUR_FRAME, mode, sample, report)


def tell(report: Report, series: Series, modes: list[str], open_us: dict[str, float]) -> None:
    columns = [
        "server",
        *(f"{mode} {what}" for mode in modes for what in ("µs", "x C")),
        "per s",
        "p50 ms",
        "p99 ms",
        "frame B",
        "open µs",
    ]
    rows: list[list[Cell]] = []
    for name in series.names():
        costs = [figure for mode in modes for figure in (series.cpu_us(name, mode), series.times(name, mode, FLOOR))]
        rate = series.middle_of(name, modes[0], "rate")
        waits = [series.middle_of(name, modes[-1], what) / 1000 for what in ("p50", "p99")]
        rows.append([name, *costs, rate, *waits, series.middle_of(name, modes[0], "frame_bytes"), open_us.get(name)])
    report.table("CPU per delivery (process tree, kernel included); rate saturated; latency at 5 msg/s", columns, rows)
    report.bars(
        "CPU per delivery",
        "x C, single sends",
        {m: {n: series.times(n, m, FLOOR) or float("nan") for n in series.names()} for m in modes},
    )
    targets(report, series)


def targets(report: Report, series: Series) -> None:
    report.target("5 msg/s, CPU per delivery against C's single sends", series.times(OURS, PACED, FLOOR), "<=", 1.2, unit="x")
    report.target("the same against C sending our frame's size", series.times(OURS, PACED, OUR_FRAME), "<=", 1.2, unit="x")
    report.target("saturated, against C's single sends", series.times(OURS, SATURATED, FLOOR), "<=", 0.4, unit="x")
    report.target("saturated, against Centrifugo", series.times(OURS, SATURATED, CENTRIFUGO), "<=", 0.5, unit="x")
    for mode in (SATURATED, PACED):
        ratios = {name: series.times(OURS, mode, name) for name in series.names() if not name.startswith("C,") and name != OURS}
        known = {
            name: ratio
            for name, ratio in ratios.items()
            if ratio is not None and name not in {CENTRIFUGO, FLOOR_JOIN, "ws on node"}
        }
        toughest = max(known, key=lambda name: known[name], default=None)
        report.target(
            f"{mode}, against the toughest Python peer ({toughest})", known[toughest] if toughest else None, "<=", 1.0, unit="x"
        )
