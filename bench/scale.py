"""Do costs stay flat as things grow?

Deliveries: CPU of one when a channel has 100 … 15,000 subscribers, one message at a time (beside C's, measured in the same turn).
Publishes: CPU of one when 1 … 50,000 channels are open, each with one listener. History: a page of 50 in a conversation of
10³ … 10⁶ messages (10⁷ with `--full`), the newest and from the log's middle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.harness.cache import Missing
from bench.harness.contenders import FLOOR, OURS, Contender, room_peers
from bench.harness.load import HttpLoad, Request, SocketLoad
from bench.harness.measure import Options, Series, lineup, middle, under_load
from bench.harness.plan import Plan, Topology, one_room
from bench.harness.processes import sockets_possible
from bench.harness.report import Cell, Report
from bench.ours import Ours, OurServer

CONTENT_BYTES = 128
PER_ROUND = 40_000  # deliveries measured at each size and round
FLAT = 1.2
ALONE = 1  # subscriber: what a message costs by itself
LISTENERS = 500  # sockets that share the channels of the publish rows
FILLERS = 100  # sockets that fill a conversation
ONE = "one at a time"


def run(options: Options) -> None:
    sizes = [100, 1000] if options.short else [100, 1000, 5000, 10_000, 15_000]
    channels = [1, 100, 1000] if options.short else [1, 100, 1000, 10_000, 50_000]
    messages = [1000, 10_000] if options.short else [1000, 10_000, 100_000, 1_000_000]
    if options.full:
        messages.append(10_000_000)
    sizes = [ALONE, *(size for size in sizes if size + 200 <= sockets_possible())]
    report = Report(
        "scale",
        "do costs stay flat as things grow?",
        {"subscribers": sizes, "channels": channels, "messages": messages, "rounds": options.rounds},
    )
    deliveries(options, sizes, report)
    try:
        server = Ours().start(sockets=LISTENERS + FILLERS + 200)
        report.version(OURS, Ours().version())
    except Missing as missing:
        report.missing(OURS, missing)
    else:
        try:
            publishes(options, channels, server, report)
            pages(options, messages, server, report)
        finally:
            server.stop()
    report.save(options.out)


def deliveries(options: Options, sizes: Sequence[int], report: Report) -> None:
    costs: dict[str, dict[int, float]] = defaultdict(dict)
    contenders: list[Contender] = [next(peer for peer in room_peers() if peer.name == FLOOR), Ours()]
    with lineup(contenders, report, sockets=max(sizes) + 200) as up:
        for size in sizes:
            series = Series()
            command = f"burst count=1 repeat={min(500, max(3, PER_ROUND // size))} size={CONTENT_BYTES}"
            with under_load(up, one_room(size, publishers=10), report) as runners:
                for runner in runners:
                    runner.run(f"burst count=1 repeat=5 size={CONTENT_BYTES}")
                for _ in range(options.rounds):
                    for runner in runners:
                        series.add(runner.name, ONE, runner.run(command), report)
            for name in series.names():
                costs[name][size] = series.cpu_us(name, ONE)
    tell(report, "CPU µs per delivery by subscribers", costs, sizes)
    net = {name: less_alone(by_size) for name, by_size in costs.items()}
    tell(report, "The same less what a message costs by itself (that of one subscriber)", net, sizes[1:])
    flat(report, "delivery", {size: cost for size, cost in costs[OURS].items() if size != ALONE})
    flat(report, "delivery less the message's own cost", net.get(OURS, {}))


def less_alone(by_size: dict[int, float]) -> dict[int, float]:
    alone = by_size.get(ALONE, float("nan"))
    return {size: (cost * size - alone) / (size - 1) for size, cost in by_size.items() if size != ALONE}


def publishes(options: Options, channels: Sequence[int], server: OurServer, report: Report) -> None:
    costs: dict[int, float] = {}
    for count in channels:
        sockets = min(count, LISTENERS)
        rooms = tuple(tuple(range(n, count, sockets)) for n in range(sockets))
        load = SocketLoad(server.process.port, server.plan(Topology(count, rooms, publishers=10)))
        opened = load.opened()
        if opened.ready < opened.connections:
            report.note(f"{count} channels: {opened.error}")
        load.run(f"paced rate=200 seconds=0.5 size={CONTENT_BYTES}")
        costs[count] = middle(publish_cost(server, load) for _ in range(options.rounds))
        load.close()
    tell(report, "CPU µs per publish by open channels", {OURS: costs}, channels)
    flat(report, "publish", costs)


def publish_cost(server: OurServer, load: SocketLoad) -> float:
    before = server.process.cpu_s()
    counted = load.run(f"paced rate=400 seconds=1 size={CONTENT_BYTES}")
    return (server.process.cpu_s() - before) * 1e6 / max(counted.deliveries, 1)


def pages(options: Options, messages: Sequence[int], server: OurServer, report: Report) -> None:
    costs: dict[str, dict[int, float]] = {"newest": {}, "middle": {}}
    conversation = len(server.conversations)
    filler = SocketLoad(server.process.port, filling(server, conversation))
    filler.opened()
    have = 0
    for wanted in messages:
        while have < wanted:
            have += filler.run(f"closed seconds={min(5, max(0.05, (wanted - have) / 5000)):.2f} size={CONTENT_BYTES}").acks
        load = HttpLoad(server.process.port, page_requests(server, conversation, have))
        for page, by_size in costs.items():
            by_size[wanted] = middle(page_cost(server, load, page, report) for _ in range(options.rounds))
        load.close()
    filler.close()
    tell(report, "CPU µs per history page of 50 by messages", costs, messages)
    for page, by_size in costs.items():
        flat(report, f"{page} page", by_size)


def filling(server: OurServer, conversation: int) -> Plan:
    """Senders, all into one conversation that nobody listens to."""
    whole = server.plan(Topology(conversation + 1, (), publishers=FILLERS))
    return Plan(whole.targets[-1:], whole.connections)


def page_requests(server: OurServer, conversation: int, messages: int) -> list[Request]:
    name, token = server.conversation(conversation), server.token()
    return [
        Request("newest", "GET", f"/v1/messages?conversation_id={name}&limit=50", token),
        Request("middle", "GET", f"/v1/conversations/{name}/log?after={messages // 2}&limit=50", token),
    ]


def page_cost(server: OurServer, load: HttpLoad, page: str, report: Report) -> float:
    before = server.process.cpu_s()
    answered = load.run(f"closed name={page} conns=4 seconds=0.5")
    if answered.failed:
        report.note(f"{page} page: {answered.failed} failed ({answered.error[:200]})")
    return (server.process.cpu_s() - before) * 1e6 / max(answered.requests, 1)


def tell(report: Report, title: str, costs: dict[str, dict[int, float]], sizes: Sequence[int]) -> None:
    rows: list[list[Cell]] = [[name, *(by_size.get(size) for size in sizes)] for name, by_size in costs.items()]
    report.table(title, ["", *map(str, sizes)], rows)
    report.lines(title, "µs", {name: {str(size): cost for size, cost in by_size.items()} for name, by_size in costs.items()})


def flat(report: Report, what: str, by_size: dict[int, float]) -> None:
    known = [cost for cost in by_size.values() if cost == cost]
    report.target(f"{what}: dearest against cheapest size", max(known) / min(known) if known else None, "<=", FLAT, unit="x")
