"""What does it cost when 100 messages meet a channel of 1,000 at once?

100 publishers send one message each in the same moment; the next burst begins when everyone has all of the last. A server that
joins what one turn brings makes a few writes per socket where others make a hundred.
"""

from __future__ import annotations

from bench.harness.contenders import CENTRIFUGO, FLOOR, OURS, Contender, room_peers
from bench.harness.measure import Options, Series, lineup, under_load
from bench.harness.plan import one_room
from bench.harness.report import Cell, Report
from bench.ours import Ours

SUBSCRIBERS, MESSAGES, CONTENT_BYTES = 1000, 100, 128
BURST = "burst"


def run(options: Options) -> None:
    command = f"burst count={MESSAGES} repeat={1 if options.short else 3} size={CONTENT_BYTES} gap_ms=20"
    report = Report(
        BURST,
        f"{MESSAGES} messages at once into a channel of {SUBSCRIBERS:,}",
        {
            "subscribers": SUBSCRIBERS,
            "messages": MESSAGES,
            "content_bytes": CONTENT_BYTES,
            "rounds": options.rounds,
            "command": command,
        },
    )
    contenders: list[Contender] = options.chosen([*room_peers(), Ours()])
    topology = one_room(SUBSCRIBERS, publishers=MESSAGES)
    series = Series()
    with lineup(contenders, report, sockets=topology.sockets) as up, under_load(up, topology, report, order=(OURS,)) as runners:
        for runner in runners:
            runner.run(f"burst count={MESSAGES} repeat=1 size={CONTENT_BYTES}")
        for _ in range(options.rounds):
            for runner in runners:
                series.add(runner.name, BURST, runner.run(command), report)
    tell(report, series)
    report.save(options.out)


def tell(report: Report, series: Series) -> None:
    times = {name: series.times(name, BURST, FLOOR) for name in series.names()}
    rows: list[list[Cell]] = [
        [
            name,
            series.cpu_us(name, BURST),
            times[name],
            series.middle_of(name, BURST, "p99") / 1000,
            series.middle_of(name, BURST, "frame_bytes"),
        ]
        for name in series.names()
    ]
    report.table("CPU per delivery; p99 from the moment of the burst", ["server", "µs", "x C", "p99 ms", "frame B"], rows)
    report.bars("burst of 100", "CPU per delivery, x C", {BURST: {name: value or float("nan") for name, value in times.items()}})
    ours = series.times(FLOOR, BURST, OURS)
    report.target("C's single-send cost over ours", ours, ">=", 25, unit="x")
    report.target("against Centrifugo", series.times(OURS, BURST, CENTRIFUGO), "<=", 0.2, unit="x")
