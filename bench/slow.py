"""Do readers that never read hurt the others?

1,000 subscribers, 50 messages of 4,000 bytes a second; once all of them read, once 100 never do. Looked at: when the 900 others
get their messages, and how much memory the server takes. Two servers stand side by side, fresh sockets each round.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

from bench.harness.contenders import CENTRIFUGO, OURS, Contender, Server, room_peers
from bench.harness.load import Counted, SocketLoad
from bench.harness.measure import Options, lineup, middle
from bench.harness.plan import one_room
from bench.harness.report import Cell, Report
from bench.ours import Ours

SUBSCRIBERS, MUTE, RATE, CONTENT_BYTES = 1000, 100, 50, 4000
OUTBOX_MIB = 1  # a connection's bound (failure-policy.md §1)
PEERS = {CENTRIFUGO, "aiohttp on uvloop", "websockets broadcast on uvloop", "picows on uvloop"}
Rows = dict[str, dict[str, list[float]]]


def run(options: Options) -> None:
    seconds = 8 if options.short else 20
    rounds = 1 if options.short else min(options.rounds, 5)
    report = Report(
        "slow",
        f"{MUTE} of {SUBSCRIBERS:,} readers never read",
        {"rate": RATE, "content_bytes": CONTENT_BYTES, "seconds": seconds, "rounds": rounds},
    )
    contenders: list[Contender] = [one for one in room_peers() if one.name in PEERS]
    chosen = options.chosen([*contenders, Ours()], short=[OURS, CENTRIFUGO])
    figures: Rows = defaultdict(lambda: defaultdict(list))
    with lineup(chosen, report, sockets=2 * SUBSCRIBERS) as up:
        for _ in range(rounds):
            for contender, server in up:
                for mute in (0, MUTE):
                    measure(contender.name, server, mute, seconds, figures[contender.name], report)
    tell(report, figures)
    report.save(options.out)


def measure(name: str, server: Server, mute: int, seconds: float, figures: dict[str, list[float]], report: Report) -> None:
    load = SocketLoad(server.process.port, server.plan(one_room(SUBSCRIBERS, publishers=20, mute=mute)))
    opened = load.opened()
    load.run(f"burst count=1 repeat=20 size={CONTENT_BYTES}")
    empty = server.process.rss_bytes()
    counted, peak = watched(load, server, f"paced rate={RATE} seconds={seconds} size={CONTENT_BYTES}")
    load.close()
    with suppress(OSError):
        figures[f"p99 {mute}"].append(counted.delivered_us.p99 / 1000)
        figures[f"p50 {mute}"].append(counted.delivered_us.p50 / 1000)
        figures[f"grown {mute}"].append((peak - empty) / 2**20)
    if counted.wrong or opened.ready < opened.connections:
        report.note(f"{name}, {mute} mute: {counted.wrong or opened.error}")


def watched(load: SocketLoad, server: Server, command: str) -> tuple[Counted, int]:
    """The command's outcome and the server's largest resident set meanwhile, looked at twice a second."""
    peak = 0
    load.tell(command)
    while not load.answered(within_s=0.5):
        peak = max(peak, server.process.rss_bytes())
    return load.counted(), max(peak, server.process.rss_bytes())


def tell(report: Report, figures: Rows) -> None:
    middles = {name: {what: middle(values) for what, values in by.items()} for name, by in figures.items()}
    rows: list[list[Cell]] = []
    for name, by in middles.items():
        ratio = by[f"p99 {MUTE}"] / by["p99 0"]
        rows.append(
            [name, by["p50 0"], by["p99 0"], by[f"p50 {MUTE}"], by[f"p99 {MUTE}"], ratio, by["grown 0"], by[f"grown {MUTE}"]]
        )
    columns = ["server", "p50 ms", "p99 ms", "p50 with mute", "p99 with mute", "p99 ratio", "grown MiB", "grown MiB with mute"]
    report.table("Delivery to those who read", columns, rows)
    report.bars(
        "slow",
        "p99 ms",
        {
            "all read": {n: by["p99 0"] for n, by in middles.items()},
            "10 % mute": {n: by[f"p99 {MUTE}"] for n, by in middles.items()},
        },
    )
    ours = middles.get(OURS)
    report.target(
        "p99 of the others against the run where all read",
        ours[f"p99 {MUTE}"] / ours["p99 0"] if ours else None,
        "<=",
        1.1,
        unit="x",
    )
    report.target("memory grown", ours[f"grown {MUTE}"] if ours else None, "<=", MUTE * OUTBOX_MIB, unit=" MiB")
