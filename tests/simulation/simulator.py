"""The simulated world of one seed: nodes, people, faults, checks, from the first connection to the last task gone.

world, sim = run_seed(7)
assert world.violations == []
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog
import trio
from tests.simulation.bugs import planted
from tests.simulation.checker import Checker
from tests.simulation.cluster import Cluster, knobs, settings
from tests.simulation.deeds import Deeds
from tests.simulation.nemesis import Nemesis, plan
from tests.simulation.people import Person

from secureconnect.features.conversations.entries import Deed, created
from secureconnect.features.conversations.model import Conversation, NewMember
from secureconnect.features.conversations.model import Settings as Rules
from secureconnect.ids import ConversationId
from secureconnect.testing.determinism import simulate
from secureconnect.testing.fault_plan import Fault
from secureconnect.testing.simulated_network import UNACKNOWLEDGED_S
from secureconnect.testing.world import World, WorldIds

CONVERGED_S = 60.0
"""After everything was healed: every message acknowledged or given up, every node up."""
SETTLED_S = 12.0
"""And then: everybody has everything, the promise being 10 s."""
LEAVING_S = 13.0
"""After the last client has gone: channels of a log linger 10 s, a close handshake 2."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a world is."""

    nodes_min: int
    nodes_max: int
    people: int
    messages: int
    messages_max: int
    """In busy worlds; more than that costs minutes."""
    span_s: float
    conversations_max: int
    quiet_share: float = 0.3
    """Of the seeds, see `Simulator.is_quiet`."""
    busy_share: float = 0.25
    """Of the others: `messages_max`."""


SMALL = Size(nodes_min=1, nodes_max=3, people=4, messages=5, messages_max=25, span_s=8.0, conversations_max=3)
BIG = Size(nodes_min=3, nodes_max=3, people=18, messages=6, messages_max=14, span_s=20.0, conversations_max=6)
QUIET = replace(SMALL, quiet_share=1.0)
BUSY = replace(SMALL, quiet_share=0.0, busy_share=1.0)


class Simulator:
    """Everything of one world."""

    def __init__(self, world: World, size: Size, faults: Sequence[Fault] | None = None) -> None:
        """`faults`: instead of the seed's own plan."""
        self.world, self.size = world, size
        chance = world.rng("knobs")
        count = chance.randint(size.nodes_min, size.nodes_max)
        self.is_quiet = chance.random() < size.quiet_share
        """Each writes once and few insist: no later entry and no repetition shows that one was lost on its way to the readers."""
        is_busy = chance.random() < size.busy_share
        self.messages = 1 if self.is_quiet else size.messages_max if is_busy else chance.choice((1, size.messages))
        """Of each person. In busy conversations bounds are reached."""
        names = [f"n{number}" for number in range(count)]
        self.cluster = Cluster(
            world,
            names,
            settings(chance, is_quiet=self.is_quiet),
            window_bytes=chance.choice((2_048, 16_384, 65_536)),
            cut_short=chance.choice((0.05, 0.1, 0.6)),
        )
        self.checker = Checker(self)
        self.deeds = Deeds(self)
        self.people: list[Person] = []
        self.rooms: dict[ConversationId, list[Person]] = {}
        """Each conversation with its founders, an admin first."""
        self.ended: dict[str, None] = {}
        """Tokens whose session somebody tried to end."""
        self.exceptions: list[str] = []
        self.is_ending = False
        self.plan = plan(world.rng("nemesis"), size.span_s, is_quiet=self.is_quiet)
        self.faults = self.plan if faults is None else faults

    async def main(self, world: World) -> None:
        await self._populate()
        async with trio.open_nursery() as nursery:
            for name in self.cluster.hosts:
                await self.cluster.up(name)
            nursery.start_soon(self.checker.look)
            for person in self.people:
                nursery.start_soon(person.live)
                nursery.start_soon(person.outgoing.produce, self.messages, self.size.span_s)
            self.deeds.begin()
            nemesis = Nemesis(self)
            await nemesis.run(self.faults)
            await trio.sleep_until(self.size.span_s + 1.0)
            await self._converge(nemesis)
            await trio.sleep(SETTLED_S)
            self.checker.stored()
            await self._leave()
            nursery.cancel_scope.cancel()

    async def _populate(self) -> None:
        chance, cluster = self.world.rng("population"), self.cluster
        for number in range(self.size.people):
            name = f"p{number}"
            self.people.append(Person(self, name, *await cluster.user(name)))
        ids = WorldIds(self.world, "conversations")
        for _ in range(chance.randint(self.size.conversations_max if self.is_quiet else 1, self.size.conversations_max)):
            conversation = ConversationId(ids.new())
            members = chance.sample(self.people, chance.randint(2, len(self.people)))
            admin, now_us = members[0], cluster.clock.now_us()
            sees_all = chance.random() < 0.5
            rules = Rules(is_e2ee_enabled=False, history_visibility="all" if sees_all else "from_join")
            kept = Conversation(conversation, "group", "a room", None, admin.user, now_us, now_us, rules)
            roles = [NewMember(person.user, "admin" if person is admin else "member", now_us) for person in members]
            await cluster.bundle.conversations.create(
                kept, roles, created(Deed(ids.new(), conversation, admin.user, now_us), kept, [])
            )
            self.rooms[conversation] = members
            for person in members:
                person.inbox.joins(conversation, sees_all=sees_all)

    async def _converge(self, nemesis: Nemesis) -> None:
        while nemesis.under_way:  # noqa: ASYNC110  # virtual time: nothing is spent
            await trio.sleep(0.1)
        await trio.sleep_until(max(person.hindered_until_s for person in self.people))
        self.cluster.heal()
        self.world.trace("healed")
        with trio.move_on_after(CONVERGED_S) as scope:
            while not self._is_settled():  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.25)
        if scope.cancelled_caught:
            pending = {person.name: list(person.outgoing.pending) for person in self.people if person.outgoing.pending}
            self.world.violate("no convergence", f"pending {pending}, up {list(self.cluster.nodes)}")

    def _is_settled(self) -> bool:
        is_done = not self.deeds.under_way and not any(person.outgoing.pending for person in self.people)
        return is_done and len(self.cluster.nodes) == len(self.cluster.hosts)

    async def _forgotten(self) -> None:
        """Half-open sockets go when they are idle, or when the kernel gives up what was sent to them."""
        settings = self.cluster.settings
        with trio.move_on_after(settings.socket_idle_s + settings.socket_ping_s + UNACKNOWLEDGED_S):
            while any(node.gateway.sockets for node in self.cluster.nodes.values()):  # noqa: ASYNC110  # virtual time
                await trio.sleep(1.0)

    async def _leave(self) -> None:
        self.is_ending = True
        await trio.sleep(LEAVING_S)
        if "vanished" in self.world.seen:
            await self._forgotten()
        await self.checker.left_behind()


@contextmanager
def quiet(exceptions: list[str]) -> Iterator[None]:
    """No lines of the log, but what is unexpected is kept."""

    def keep(logger: object, method: str, event: Any) -> Any:  # noqa: ANN401  # structlog's own types
        if event.get("event") == "unexpected":
            exceptions.append(repr(structlog.processors.ExceptionRenderer()(logger, method, event).get("exception")))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        yield
    finally:
        structlog.configure(**before)


def run_seed(
    seed: int,
    size: Size = SMALL,
    *,
    bug: str | None = None,
    faults: Sequence[Fault] | None = None,
    keep_log: bool = False,
    trace_steps: bool = False,
) -> tuple[World, Simulator]:
    """One seed's world, run to its end. `faults`: instead of the seed's own plan. `trace_steps`: as `simulate`."""
    world = World(seed, keep_log=keep_log)
    with knobs(world.rng("constants")), planted(bug):
        sim = Simulator(world, size, faults)
        with quiet(sim.exceptions):
            simulate(world, sim.main, trace_steps=trace_steps)
    return world, sim
