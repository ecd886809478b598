"""Redis is killed under load and comes back: how long until delivery across nodes is live again, and what does it cost?

Two nodes on one Redis and one PostgreSQL. A probe sends 50 messages a second at the first node and listens at the second.
While Redis is away these arrive by the digest in SQL, which is read every 500 ms; delivery is *live* from the first message on
that, with the nine behind it, took at most 100 ms each: the digest could not bring ten sent over 200 ms so fast. Beside the
probe, sockets that repair nothing by themselves count what the second node misses, and others on the first node tell whether
they notice: p99 during the outage (its first 2 s left out) against p99 before, by failure-policy.md §3's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from bench.harness.cache import Missing
from bench.harness.load import Counted, SocketLoad
from bench.harness.measure import Options, middle
from bench.harness.plan import small_rooms
from bench.harness.report import Cell, Report
from bench.nodes import Pair, pair
from secureconnect.client import Client, connect

PERIOD_S: Final = 0.02
LIVE_S: Final = 0.1
LIVE_IN_A_ROW: Final = 10
PATIENCE_S: Final = 10.0
"""How long the return of live delivery is waited for."""
SETTLE_S: Final = 2.0
"""Behind the fault: left out of p99, as failure-policy.md §3 says."""
RATE: Final = 50
"""Messages per second of either load; in rooms of ten sockets that is 500 deliveries."""
ROOMS: Final = 10
CROSS, SAME = "across nodes", "same node"


@dataclass(slots=True)
class Probe:
    """When each numbered message was sent, and when it arrived."""

    sent_s: dict[int, float] = field(default_factory=dict)
    arrived_s: dict[int, float] = field(default_factory=dict)
    live: trio.Event = field(default_factory=trio.Event)
    _returned_s: float = float("inf")
    _row_s: list[float] = field(default_factory=list)

    async def send(self, client: Client, room: str) -> None:
        due_s, number = trio.current_time(), 0
        while True:
            self.sent_s[number] = trio.current_time()
            await client.send(room, str(number))
            number, due_s = number + 1, max(due_s + PERIOD_S, trio.current_time())
            await trio.sleep_until(due_s)

    async def listen(self, client: Client) -> None:
        async for event in client.events():
            if event.name == "message.created":
                self._arrived(int(event.data["content"]), trio.current_time())

    def _arrived(self, number: int, at_s: float) -> None:
        self.arrived_s[number] = at_s
        if at_s >= self._returned_s and not self.live.is_set():
            self._row_s = [*self._row_s, at_s] if at_s - self.sent_s[number] <= LIVE_S else []
            if len(self._row_s) == LIVE_IN_A_ROW:
                self.live.set()

    async def live_again_s(self, returned_s: float) -> float:
        """How long after `returned_s` the first of ten that came in time one after another arrived; infinite: not soon."""
        self._returned_s = returned_s
        with trio.move_on_after(PATIENCE_S):
            await self.live.wait()
        return self._row_s[0] - returned_s if self.live.is_set() else float("inf")

    def slowest_ms(self, from_s: float, to_s: float) -> float:
        """Of those sent in that time; infinite when one has not arrived."""
        waits = (self.arrived_s.get(n, float("inf")) - at_s for n, at_s in self.sent_s.items() if from_s <= at_s < to_s)
        return max(waits, default=float("nan")) * 1000


@dataclass(frozen=True, slots=True)
class Outage:
    """What one of them brought. `live_s`: from the moment when Redis listens again; infinite: not within 10 s."""

    live_s: float
    slowest_ms: float
    before: Counted
    during: Counted
    across: Counted


def run(options: Options) -> None:
    outage_s, rounds = (4.0, 1) if options.short else (10.0, options.rounds)
    report = Report(
        "failover",
        "Redis killed and restarted under load",
        {"outage_s": outage_s, "rounds": rounds, "rate": RATE, "rooms": ROOMS, "probe_ms": PERIOD_S * 1000},
    )
    try:
        with pair(report, sockets=1000) as nodes, ExitStack() as stack:
            loads = opened(nodes, stack, report)
            outages = [trio.run(partial(outage, nodes, loads, outage_s)) for _ in range(rounds)]
    except Missing as missing:
        report.missing("two nodes", missing)
    else:
        tell(report, outages)
    report.save(options.out)


def opened(nodes: Pair, stack: ExitStack, report: Report) -> dict[str, SocketLoad]:
    """Both loads, each in rooms of its own; the probe's room is the one behind them."""
    loads: dict[str, SocketLoad] = {}
    topology = small_rooms(ROOMS, 10, 1)
    for name, reading, first_room in ((SAME, nodes.first, 0), (CROSS, nodes.second, ROOMS)):
        loads[name] = SocketLoad(
            nodes.first.process.port, nodes.plan(topology, readers_at=reading, first_room=first_room), order=True
        )
        stack.callback(loads[name].close)
        told = loads[name].opened()
        if told.failed:
            report.note(f"{name}: {told.failed} of {told.connections} connections failed ({told.error})")
        loads[name].run(f"paced rate={RATE} seconds=0.5")  # warm
    return loads


async def outage(nodes: Pair, loads: dict[str, SocketLoad], outage_s: float) -> Outage:
    """Before, the kill, the outage, the return; all the while the probe sends."""
    room, probe = nodes.first.conversation(2 * ROOMS), Probe()
    across: list[Counted] = []

    async def loaded(name: str, seconds: float) -> Counted:
        command = f"paced rate={RATE} seconds={seconds}"
        return await trio.to_thread.run_sync(loads[name].run, command)

    async def watch_across(seconds: float) -> None:
        across.append(await loaded(CROSS, seconds))

    sender, listener = (
        connect(f"http://127.0.0.1:{node.process.port}", token=nodes.first.token(), channels=[f"conversation:{room}"])
        for node in (nodes.first, nodes.second)
    )
    async with sender as here, listener as there, trio.open_nursery() as probing:
        for client in (here, there):
            await client.wait_state("live")
        probing.start_soon(probe.listen, there)
        probing.start_soon(probe.send, here, room)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_across, 2 * outage_s + PATIENCE_S / 4)  # all of it, until behind the return
            before = await loaded(SAME, outage_s - SETTLE_S)
            nodes.redis.process.kill()
            killed_s = trio.current_time()
            await trio.sleep(SETTLE_S)
            during = await loaded(SAME, outage_s - SETTLE_S)
            await trio.to_thread.run_sync(nodes.redis.start)
            returned_s = trio.current_time()
            live_s = await probe.live_again_s(returned_s)
        probing.cancel_scope.cancel()
    return Outage(live_s, probe.slowest_ms(killed_s, returned_s), before, during, across[0])


def tell(report: Report, outages: Sequence[Outage]) -> None:
    rows: list[list[Cell]] = []
    for number, one in enumerate(outages, 1):
        p99 = [counted.delivered_us.p99 / 1000 for counted in (one.before, one.during)]
        lost = one.across.expected - one.across.deliveries
        rows.append([str(number), one.live_s, one.slowest_ms, lost, one.across.gaps, one.across.deliveries, *p99])
        for name, counted in ((SAME, one.before), (SAME, one.during), (CROSS, one.across)):
            if counted.wrong:
                report.note(f"{name}: {counted.wrong}")
    columns = ["outage", "live again s", "slowest ms", "lost", "gaps", "delivered", "p99 before ms", "p99 during ms"]
    report.table("Across nodes: live again after the return, the slowest while away; same node: p99", columns, rows)
    before, during = (middle(getattr(one, when).delivered_us.p99 / 1000 for one in outages) for when in ("before", "during"))
    report.bars("failover, same node", "p99 ms", {"p99": {"before": before, "Redis away": during}})
    report.target("live again after the return (the longest)", max(one.live_s for one in outages), "<=", 2, unit=" s")
    report.target("slowest across nodes while Redis is away", max(one.slowest_ms for one in outages), "<=", 2000, unit=" ms")
    report.target("entries lost", sum(one.across.expected - one.across.deliveries for one in outages), "<=", 0)
    report.target("gaps seen by readers", sum(one.across.gaps for one in outages), "<=", 0)
    report.target("same-node p99 during the outage", during, "<=", max(1.1 * before, before + 100), unit=" ms")
    share = max(one.during.refused / max(one.during.sent, 1) for one in outages) * 100
    report.target("same-node sends refused during the outage", share, "<=", 0.5, unit=" %")
