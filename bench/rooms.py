"""What does a message cost in many small channels: 1,000 of 10 members, each socket in 20 of them?

Counted per message, not per delivery: a small room is mostly overhead. Saturated with 64 messages on the way, so several channels
of one socket meet in a turn; and at 200 msg/s, where each message stands alone. One room of 10 alone gives the bare cost.
"""

from __future__ import annotations

from bench.harness.contenders import CENTRIFUGO, FLOOR, OURS, Contender, room_peers
from bench.harness.measure import Options, Series, lineup, under_load
from bench.harness.plan import small_rooms
from bench.harness.report import Cell, Report
from bench.ours import Ours

ROOMS, MEMBERS, ROOMS_PER_SOCKET, CONTENT_BYTES, WINDOW = 1000, 10, 20, 128, 64


def run(options: Options) -> None:
    seconds = 0.7 if options.short else 2
    modes = {
        "saturated": f"saturate seconds={seconds} window={WINDOW} size={CONTENT_BYTES}",
        "200 msg/s": f"paced rate=200 seconds={seconds} size={CONTENT_BYTES}",
    }
    report = Report(
        "rooms",
        f"{ROOMS:,} channels of {MEMBERS} members, each socket in {ROOMS_PER_SOCKET} of them",
        {
            "rooms": ROOMS,
            "members": MEMBERS,
            "rooms_per_socket": ROOMS_PER_SOCKET,
            "content_bytes": CONTENT_BYTES,
            "rounds": options.rounds,
            **modes,
        },
    )
    contenders: list[Contender] = options.chosen([*room_peers(), Ours()])
    topology = small_rooms(ROOMS, MEMBERS, ROOMS_PER_SOCKET)
    series = Series()
    with lineup(contenders, report, sockets=topology.sockets) as up, under_load(up, topology, report, order=(OURS,)) as runners:
        for runner in runners:
            runner.run(modes["saturated"])
        for _ in range(options.rounds):
            for runner in runners:
                for mode, command in modes.items():
                    series.add(runner.name, mode, runner.run(command), report)
    tell(report, series, list(modes))
    report.save(options.out)


def tell(report: Report, series: Series, modes: list[str]) -> None:
    columns = ["server", *(f"{mode} {what}" for mode in modes for what in ("µs/message", "x C")), "messages/s", "p99 ms"]
    rows: list[list[Cell]] = []
    for name in series.names():
        costs = [figure for mode in modes for figure in (series.cpu_us(name, mode) * MEMBERS, series.times(name, mode, FLOOR))]
        rate = series.middle_of(name, modes[0], "rate") / MEMBERS
        rows.append([name, *costs, rate, series.middle_of(name, modes[1], "p99") / 1000])
    report.table("CPU per message; rate saturated; latency at 200 msg/s", columns, rows)
    report.bars(
        "CPU per message",
        "x C, single sends",
        {m: {n: series.times(n, m, FLOOR) or float("nan") for n in series.names()} for m in modes},
    )
    report.target("saturated, CPU per message against C", series.times(OURS, modes[0], FLOOR), "<=", 1.5, unit="x")
    report.target("saturated, against Centrifugo", series.times(OURS, modes[0], CENTRIFUGO), "<=", 0.6, unit="x")
    report.target("200 msg/s, against C", series.times(OURS, modes[1], FLOOR), "<=", 1.5, unit="x")
