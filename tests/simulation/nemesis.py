"""What goes wrong in a simulated world: a plan drawn from the seed, each seed with its own subset of kinds (swarm testing)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import trio

from secureconnect.testing.fault_plan import Fault
from secureconnect.testing.faulty_stores import MODES, Condition, Mode

if TYPE_CHECKING:
    from tests.simulation.simulator import Simulator

STORES = ("log", "sql", "redis", "table")
BUS = ("drop", "digests", "late", "down", "mute", "dark", "deaf", "cut")
NODE = ("crash", "drain", "clock")
PERSON = ("reset", "reader", "sips", "hole", "vanish", "abandon")
KINDS = (*STORES, "full", "log", "log", *BUS, *NODE, *PERSON)
"""The log more often than the others."""
CLOCK_S = (-3600.0, -1000.0, -100.0, -1.0, 1.0, 100.0, 1000.0, 3600.0)
"""How far a clock jumps; an hour is what revocations bear."""
PAUSE_S = (0.2, 0.6, 2.0, 8.0)
"""Mean time between two faults: drawn for each seed."""
RESTART_S = 0.5
FULL_S = 5.0


def plan(chance: Random, span_s: float, *, is_quiet: bool) -> Sequence[Fault]:
    """The faults of one seed. In a quiet one few besides those of the log: most others make the nodes read it again."""
    share, of_log = (0.1, 0.9) if is_quiet else (0.5, 0.5)
    kinds = [kind for kind in KINDS if chance.random() < (of_log if kind == "log" else share)]
    pause_s = chance.choice(PAUSE_S)
    faults: list[Fault] = []
    at_s = chance.expovariate(1 / pause_s)
    while kinds and at_s < span_s:
        faults.append(Fault(len(faults), chance.choice(kinds), at_s, chance.uniform(0.5, 8.0), chance.getrandbits(32)))
        at_s += chance.expovariate(1 / pause_s)
    return faults


class Nemesis:
    """Does what the plan says."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self._cluster = sim.cluster
        self.under_way = 0

    async def run(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await trio.sleep_until(fault.at_s)
            self._sim.world.trace("fault", fault)
            self._sim.world.sometimes(f"fault {fault.kind}")
            self._sim.world.begin(self._one, fault)

    async def _one(self, fault: Fault) -> None:
        chance = Random(fault.chance)
        self.under_way += 1
        try:
            if fault.kind in STORES:
                await self._store(fault, fault.kind, chance.choice(MODES), fault.for_s, chance)
            elif fault.kind == "full":  # the disk of the database, until somebody makes room
                await self._store(fault, "sql", "full", fault.for_s + FULL_S, chance)
            elif fault.kind in NODE:
                await self._node(fault, chance)
            elif fault.kind in PERSON:
                await self._person(fault, chance)
            else:
                await self._bus(fault, chance)
        finally:
            self.under_way -= 1

    async def _store(self, fault: Fault, store: str, mode: Mode, for_s: float, chance: Random) -> None:
        condition: Condition = getattr(self._cluster, store)
        condition.become(mode)
        began_s = condition.since_s
        await trio.sleep(for_s)
        if condition.since_s == began_s:  # else a later fault has taken its place, and ends by itself
            condition.become("ok")
        if fault.kind == "redis" and chance.random() < 0.5:
            self._sim.world.sometimes("redis restarted empty")
            self._cluster.memory.restart_empty()

    async def _bus(self, fault: Fault, chance: Random) -> None:
        bus, name, share = self._cluster.bus, chance.choice(list(self._cluster.hosts)), chance.choice((0.1, 0.5, 1.0))
        begins: Mapping[str, Callable[[], object]] = {
            "drop": lambda: setattr(bus, "drop", share),
            "digests": lambda: setattr(bus, "drop_nodes", share),
            "late": lambda: setattr(bus, "late_s", 0.5 + 3 * (share == 1.0)),
            "down": bus.go_down,
            "mute": lambda: bus.mute.setdefault(name),
            "dark": lambda: bus.dark.setdefault(name),
            "deaf": lambda: bus.grow_deaf(name),
            "cut": lambda: bus.cut(name),
        }
        begins[fault.kind]()
        await trio.sleep(fault.for_s)
        bus.heal()

    async def _node(self, fault: Fault, chance: Random) -> None:
        name = chance.choice(list(self._cluster.hosts))
        if fault.kind == "clock":
            self._cluster.set_clock(name, chance.choice(CLOCK_S))
            await trio.sleep(fault.for_s)
            self._cluster.set_clock(name, 0.0)
            return
        if self._cluster.hosts[name].node is None:
            return  # it is down already, and somebody brings it back
        if fault.kind == "crash":
            await self._cluster.crash(name)
        else:
            await self._cluster.drain(name, self._cluster.settings.shutdown_grace_s + 6.0)
        await trio.sleep(max(RESTART_S, fault.for_s / 2))
        await self._cluster.up(name)

    async def _person(self, fault: Fault, chance: Random) -> None:
        person, net, now = chance.choice(self._sim.people), self._cluster.net, self._sim.world.now()
        host, transport = person.host, person.transport
        if fault.kind == "reader":
            person.paused_until_s = max(person.paused_until_s, now + 2 * fault.for_s)
        elif fault.kind == "sips" and transport is not None:
            person.slow_until_s = max(person.slow_until_s, now + 2 * fault.for_s)
            transport.sip_bytes = chance.choice((1, 64, 512))
            await trio.sleep(2 * fault.for_s)
            transport.sip_bytes = None
        elif fault.kind == "vanish" and transport is not None:
            self._sim.world.sometimes("vanished")
            transport.vanish()
        elif fault.kind == "abandon" and transport is not None:
            transport.abort()
        elif fault.kind == "reset" and host is not None and net.reset(person.name, host):
            self._sim.world.sometimes("reset")
        elif fault.kind == "hole":
            host = host or chance.choice(list(self._cluster.hosts))
            person.cut_until_s = max(person.cut_until_s, now + fault.for_s)
            net.hole(person.name, host)
            await trio.sleep(fault.for_s)
            net.heal(person.name, host)
