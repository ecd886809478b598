"""What do 10,000 silent sockets cost, logged in and subscribed, in memory and in CPU?

Each server is started afresh for each round; memory is its resident set with the sockets open less that of the empty server
(which has served 20 sockets before, so that lazy imports and pools are not counted). The CPU is that of some seconds of silence.
"""

from __future__ import annotations

from collections import defaultdict

from bench.harness.cache import Missing
from bench.harness.contenders import CENTRIFUGO, FLOOR, FLOOR_JOIN, OURS, Contender, room_peers
from bench.harness.load import SocketLoad
from bench.harness.measure import Options, middle
from bench.harness.plan import one_room
from bench.harness.processes import sockets_possible
from bench.harness.report import Cell, Report
from bench.ours import Ours

NODE = "ws on node"
PRESENCE_TOLD_S = 8
"""Ours tells co-members who came, 2 s later and a user each half second in a room that large: silence begins behind that."""
SHORT = {FLOOR, OURS, CENTRIFUGO, NODE, "aiohttp on uvloop"}
Figures = dict[str, dict[str, list[float]]]


def run(options: Options) -> None:
    sockets = min(2000 if options.short else 10_000, sockets_possible())
    seconds = 2 if options.short else 10
    rounds = 1 if options.short else options.rounds
    report = Report("idle", f"what {sockets:,} silent sockets cost", {"sockets": sockets, "quiet_s": seconds, "rounds": rounds})
    contenders: list[Contender] = [one for one in room_peers() if one.name != FLOOR_JOIN]
    chosen = options.chosen([*contenders, Ours()], short=SHORT)
    figures: Figures = defaultdict(lambda: defaultdict(list))
    for round_number in range(rounds):
        for contender in chosen:
            try:
                measure(contender, sockets, seconds, figures[contender.name], report)
            except Missing as missing:
                if round_number == 0:
                    report.missing(contender.name, missing)
                figures.pop(contender.name, None)
    tell(report, figures)
    report.save(options.out)


def measure(contender: Contender, sockets: int, seconds: float, figures: dict[str, list[float]], report: Report) -> None:
    server = contender.start(sockets=sockets + 100)
    report.version(contender.name, contender.version())
    try:
        process = server.process
        warm = SocketLoad(process.port, server.plan(one_room(20, publishers=0)))
        warm.opened()
        warm.run("quiet seconds=0.3")
        warm.close()
        empty, before = process.rss_bytes(), process.cpu_s()
        load = SocketLoad(process.port, server.plan(one_room(sockets, publishers=0)))
        opened = load.opened()
        open_cpu = process.cpu_s() - before
        load.run(f"quiet seconds={PRESENCE_TOLD_S if contender.name == OURS else 1}")
        full, before = process.rss_bytes(), process.cpu_s()
        counted = load.run(f"quiet seconds={seconds}")
        quiet_cpu = process.cpu_s() - before
        load.close()
    finally:
        server.stop()
    if opened.failed or counted.closed:
        report.note(
            f"{contender.name}: {opened.failed} sockets failed, {counted.closed} closed ({opened.error or counted.error})"
        )
    figures["kib"].append((full - empty) / 1024 / max(opened.ready, 1))
    figures["empty_mib"].append(empty / 2**20)
    figures["cpu_percent"].append(quiet_cpu / counted.seconds * 100)
    figures["open_us"].append(open_cpu * 1e6 / max(opened.ready, 1))


def tell(report: Report, figures: Figures) -> None:
    middles = {name: {what: middle(values) for what, values in by.items()} for name, by in figures.items()}
    rows: list[list[Cell]] = [
        [name, by["kib"], by["empty_mib"], by["cpu_percent"], by["open_us"]] for name, by in middles.items()
    ]
    report.table("Idle sockets", ["server", "KiB/socket", "empty MiB", "idle CPU %", "open µs"], rows)
    report.bars("idle", "KiB per socket", {"memory": {name: by["kib"] for name, by in middles.items()}})
    ours, node = middles.get(OURS, {}), middles.get(NODE, {})
    report.target("KiB a socket over the empty server", ours.get("kib"), "<=", 8)
    report.target("percent of a core", ours.get("cpu_percent"), "<=", 1)
    report.target("KiB a socket against ws on node", ours["kib"] / node["kib"] if ours and node else None, "<=", 1, unit="x")
