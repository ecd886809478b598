"""How fast do 5,000 sockets come back: connect, authenticate, subscribe, resume?

256 handshakes under way at any time, as after a restart. Each subscribes to one conversation from a position three entries back,
so three events are replayed to it (ours; the peers know no resume). CPU until the replay is out; rate per CPU second.
"""

from __future__ import annotations

import time
from collections import defaultdict

from bench.harness.chats import AIOHTTP, STARLETTE, chat_peers
from bench.harness.contenders import OURS, Contender, Server
from bench.harness.load import SocketLoad
from bench.harness.measure import Options, lineup, middle
from bench.harness.plan import Plan, Topology, chat, one_room
from bench.harness.report import Cell, Report
from bench.ours import Ours, OurServer

PARALLEL, MISSED = 256, 3
GOODBYE_S = 1.0  # so that the last round's closing is not counted in the next, nor its sockets against the limit


def run(options: Options) -> None:
    sockets = 1000 if options.short else 5000
    report = Report(
        "storm",
        f"{sockets:,} sockets connect, log in, subscribe, resume",
        {"parallel": PARALLEL, "missed": MISSED, "rounds": options.rounds},
    )
    contenders: list[Contender] = [one for one in chat_peers() if one.name in {AIOHTTP, STARLETTE}]
    chosen = options.chosen([*contenders, Ours()], short=[AIOHTTP, OURS])
    cpu_us: dict[str, list[float]] = defaultdict(list)
    wall: dict[str, list[float]] = defaultdict(list)
    topology = one_room(sockets, publishers=0)
    with lineup(chosen, report, sockets=sockets + 100) as up:
        plans = {contender.name: plan(server, topology) for contender, server in up}
        for _ in range(options.rounds):
            for contender, server in up:
                before = server.process.cpu_s()
                load = SocketLoad(server.process.port, plans[contender.name], parallel=PARALLEL)
                opened = load.opened()
                load.run("quiet seconds=0.2")
                cpu_us[contender.name].append((server.process.cpu_s() - before) * 1e6 / max(opened.ready, 1))
                wall[contender.name].append(opened.ready / opened.seconds)
                load.close()
                time.sleep(GOODBYE_S)
                if opened.ready < opened.connections:
                    report.note(f"{contender.name}: {opened.ready} of {opened.connections} came ({opened.error})")
    tell(report, cpu_us, wall)
    report.save(options.out)


def plan(server: Server, topology: Topology) -> Plan:
    if not isinstance(server, OurServer):
        return server.plan(topology)
    position = server.say(0, MISSED)
    return chat(topology, token=server.token, conversation=server.conversation, after=lambda _: position - MISSED)


def tell(report: Report, cpu_us: dict[str, list[float]], wall: dict[str, list[float]]) -> None:
    per_core = {name: 1e6 / middle(values) for name, values in cpu_us.items()}
    rows: list[list[Cell]] = [[name, middle(values), per_core[name], middle(wall[name])] for name, values in cpu_us.items()]
    report.table("Coming back", ["server", "CPU µs each", "per core and s", "per s"], rows)
    report.bars("storm", "sockets per CPU second", {"per core": per_core})
    ours = per_core.get(OURS)
    report.target("sockets per second and core", ours, ">=", 2500)
    report.target(f"against {AIOHTTP}", ours / per_core[AIOHTTP] if ours and AIOHTTP in per_core else None, ">=", 2, unit="x")
