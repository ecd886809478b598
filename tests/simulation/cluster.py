"""The nodes of a simulated world: real ones, over shared stores in memory, a bus and a network that fail on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest.mock import patch

import trio
from tests.simulation.standing import LANES, SharedMemory, guarded, watched_sql

import secureconnect.hub.channel
import secureconnect.hub.digest
import secureconnect.hub.feed
import secureconnect.hub.pump
import secureconnect.hub.replay
import secureconnect.node
from secureconnect.backends.bundle import Bundle
from secureconnect.backends.deadlines import WRITES
from secureconnect.backends.memory.bundle import memory_bundle
from secureconnect.backends.memory.digests import MemoryDigestTable
from secureconnect.backends.policies import sql_policy
from secureconnect.config import Settings
from secureconnect.errors import BackendDown, DeadlineExceeded, OutcomeUnknown
from secureconnect.features.auth.model import LoginSession, User
from secureconnect.features.auth.passwords import Cost
from secureconnect.features.auth.tokens import Tokens
from secureconnect.features.log.lanes import Limits as LogLimits
from secureconnect.features.log.model import Appended
from secureconnect.hub import TableAway
from secureconnect.ids import ConversationId, NodeId, SessionId, UserId
from secureconnect.node import Node, Ports
from secureconnect.resilience import Stack
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.serve import Server
from secureconnect.server.wire import Response
from secureconnect.testing.determinism import task_count
from secureconnect.testing.faulty_bus import FaultyBus
from secureconnect.testing.faulty_disk import FaultyDisk
from secureconnect.testing.faulty_stores import Condition, Wire, faulty
from secureconnect.testing.simulated_network import SimulatedNetwork
from secureconnect.testing.world import InlineBlocking, World, WorldClock, WorldIds, WorldRng

SECRET = b"the secret of a simulated cluster, 32+ bytes"
TABLE_CALL_S = 5.0
"""One call of the table of digests; the hub's own limit."""
POLL_GRACE_S = 5.0
SLACK_S = 0.01
CHEAP = Cost(passes=1, memory_kib=8)
FAULTY_WRITES = {**WRITES, "log": frozenset({"append"}), "digests": frozenset({"write"})}
CLOCK_EARLY_S, CLOCK_LATE_S = -250.0, 600.0
"""A node whose clock is off by less than that must take every good token: they live 900 s and may begin 300 s ahead of it."""
EXCUSED_S = 40.0
"""An answer of a node whose clock was wrong, or that knew an older membership, may arrive so much later."""


class WatchedNode(Node):
    """Tells the world how long its requests took."""

    world: World

    def _answered(self, endpoint: Endpoint, context: Context, response: Response, seconds: float) -> None:
        super()._answered(endpoint, context, response, seconds)
        self.world.sometimes(f"answered {response.status}")
        deadline_s = 65 + POLL_GRACE_S if endpoint.deadline == "poll" else self.settings.request_deadline_s
        if seconds > deadline_s + SLACK_S:
            self.world.violate("request too long", f"{endpoint.name} on {self.name} took {seconds:.1f} s")


class Host:
    """One machine: the present node on it, if any. `clock_refuses_until_s`: until when its clock may refuse good tokens."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.clock = WorldClock(world)
        self.clock_refuses_until_s = -math.inf
        self.epoch = 0
        self.up_since_s = math.inf
        self.node: Node | None = None
        self.server: Server | None = None
        self.wire = Wire()
        self.disk = FaultyDisk()
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.tasks_at_start = 0
        self.is_starting = False


class Cluster:
    """All nodes with what they stand on. `told[conversation, sequence]`: when a node first learnt that this entry is stored."""

    def __init__(self, world: World, names: Sequence[str], settings: Settings, *, window_bytes: int, cut_short: float) -> None:
        self.world, self.settings = world, settings
        self.clock = WorldClock(world)
        """The right time; each host has its own clock."""
        self.net = SimulatedNetwork(world, window_bytes=window_bytes, cut_short=cut_short)
        self.bus = FaultyBus(world)
        self.bundle = memory_bundle(digests=MemoryDigestTable())
        call_s = settings.store_deadline_s
        self.log = self._condition("log", lambda: BackendDown("log"), OutcomeUnknown, call_s)
        self.sql = self._condition("sql", lambda: BackendDown("sql"), OutcomeUnknown, call_s)
        self.redis = self._condition("redis", lambda: BackendDown("redis"), OutcomeUnknown, settings.redis_deadline_s)
        self.memory = SharedMemory(self.clock)
        self.table = self._condition("table", lambda: TableAway("away"), lambda: TableAway("answer lost"), TABLE_CALL_S)
        self.hosts = {name: Host(world, name) for name in names}
        self.told: dict[tuple[str, int], float] = {}
        self.users: dict[UserId, User] = {}
        self._tokens = Tokens(SECRET, self.clock)

    def _condition(self, name: str, refused: Callable[[], Exception], lost: Callable[[], Exception], call_s: float) -> Condition:
        return Condition(self.world, name, refused=refused, lost=lost, call_s_max=call_s)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Those that are up."""
        return {host.name: host.node for host in self.hosts.values() if host.node is not None}

    # -- people

    async def user(self, name: str) -> tuple[UserId, str]:
        """A new account with a login session; its id and access token."""
        user = UserId(WorldIds(self.world, f"user {name}").new())
        now_us = self.clock.now_us()
        self.users[user] = User(user, f"{name}@sim.test", name, name, now_us, now_us)
        await self.bundle.users.add(self.users[user], "no password")
        return user, await self.login(user)

    async def login(self, user: UserId) -> str:
        """A fresh session's access token."""
        chance, now_us = self.world.rng("logins"), self.clock.now_us()
        session = SessionId(WorldIds(self.world, "sessions").new())
        refresh = self._tokens.first_refresh(session, chance.randbytes(32))
        await self.bundle.users.add(  # a session is begun with an account; this one is nobody's
            User(UserId(session), session, session, session, now_us, now_us),
            "",
            LoginSession(session, user, refresh.hash, now_us, now_us, now_us, now_us + 10**12),
        )
        return self._tokens.access(self.users[user], refresh, now_us)

    def session_of(self, token: str) -> SessionId:
        return self._tokens.verify(token).session

    # -- nodes

    async def up(self, name: str) -> None:
        """Start a node and wait until it serves; while its stores are away, again and again."""
        host = self.hosts[name]
        if host.is_starting or host.node is not None:
            return
        host.is_starting = True
        try:
            await self._up(host)
        finally:
            host.is_starting = False

    async def _up(self, host: Host) -> None:
        while True:
            host.epoch += 1
            host.wire = Wire()
            host.disk = host.disk.after_power_cut()  # what the last run still writes is lost
            host.scope = trio.CancelScope()
            started = trio.Event()
            self.world.begin(self._run, host, host.wire, started)
            await started.wait()
            if host.node is not None:
                return
            await trio.sleep(0.5)

    async def _run(self, host: Host, wire: Wire, started: trio.Event) -> None:
        with host.scope as scope:
            try:
                async with trio.open_nursery() as nursery:
                    host.task = trio.lowlevel.current_task()
                    node = self._node(host, wire)
                    listener = self.net.listen(host.name)
                    server: Server = await nursery.start(node.run, listener)
                    host.node, host.server, host.up_since_s = node, server, self.world.now()
                    host.tasks_at_start = task_count(host.task)
                    self.world.trace(host.name, "up", host.epoch)
                    started.set()
            except* BackendDown:
                self.world.trace(host.name, "cannot start")
            except* DeadlineExceeded:
                self.world.trace(host.name, "cannot start")
            finally:
                started.set()
                if host.scope is scope:
                    host.node = host.server = None
                    if not wire.is_cut:
                        self.net.kill(host.name)
                wire.is_cut = True

    def _node(self, host: Host, wire: Wire) -> Node:
        ports = Ports(
            host.clock,
            WorldRng(self.world, f"{host.name} rng"),
            WorldIds(self.world, f"{host.name} ids"),
            InlineBlocking(),
            host.disk,
        )
        WatchedNode.world = self.world
        return WatchedNode(
            self._bundle(host, wire),
            ports,
            self.settings,
            secret=SECRET,
            name=NodeId(host.name),
            epoch=host.epoch,
            shared=self.memory.at_node(self.bus.port(host.name, wire), self.redis, wire, settings=self.settings, rng=ports.rng),
            password_cost=CHEAP,
        )

    def _bundle(self, host: Host, wire: Wire) -> Bundle:
        """The stores as one node reaches them, behind its guards; the log's are the append pipeline's own."""
        stack = Stack(sql_policy(self.settings), random=WorldRng(self.world, f"{host.name} sql").random)

        def skin(name: str, condition: Condition, learnt: Callable[..., None] | None = None) -> Any:  # noqa: ANN401  # any store
            return faulty(getattr(self.bundle, name), condition, wire, writes=FAULTY_WRITES[name], learnt=learnt)

        sql = {
            name: guarded(skin(name, self.sql), stack, LANES.get(name, "chat"), writes=writes)
            for name, writes in WRITES.items()
            if name != "log"
        }
        return replace(
            self.bundle,
            log=skin("log", self.log, self._learnt),
            digests=skin("digests", self.table),
            watched=watched_sql(self.sql, wire, stack, node=NodeId(host.name), clock=host.clock),
            **sql,
        )

    def _learnt(self, method: str, args: tuple[object, ...], result: object) -> None:
        if method == "append":
            for one in cast(Sequence[Appended], result):
                self.told.setdefault((one.entry.conversation, one.entry.sequence), self.world.now())

    async def crash(self, name: str) -> None:
        """A power cut: its wires are dead before anything unwinds."""
        host = self.hosts[name]
        if host.node is None:
            return
        host.node, host.wire.is_cut = None, True
        self.bus.cut(name)
        self.net.kill(name)
        host.scope.cancel()
        await trio.lowlevel.checkpoint()

    async def drain(self, name: str, limit_s: float) -> None:
        """End it politely; it must be gone in time."""
        host = self.hosts[name]
        node, server = host.node, host.server
        if node is None or server is None:
            return
        server.stop()
        with trio.move_on_after(limit_s) as scope:
            while host.node is node:  # noqa: ASYNC110  # virtual time: nothing is spent
                await trio.sleep(0.1)
        if scope.cancelled_caught:
            self.world.violate("drain too long", f"{name} is still there after {limit_s:.1f} s")

    def set_clock(self, name: str, skew_s: float) -> None:
        """The clock of a machine jumps: from now on it is off by so much."""
        host, was_s = self.hosts[name], self.hosts[name].clock.skew_us / 1e6
        host.clock.skew_us = round(skew_s * 1e6)
        if not CLOCK_EARLY_S < skew_s < CLOCK_LATE_S:
            host.clock_refuses_until_s = math.inf
        elif not CLOCK_EARLY_S < was_s < CLOCK_LATE_S:
            host.clock_refuses_until_s = self.world.now() + EXCUSED_S

    def is_calm_since(self, when_s: float) -> bool:
        """Whether nothing stood in the way of what nodes tell one another, from then until now."""
        is_wrong = any(one.was_bad_since(when_s) for one in (self.sql, self.table))
        return not is_wrong and self.bus.is_well and self.bus.bad_until_s < when_s

    def heal(self) -> None:
        """Everything but the nodes that are down."""
        for name in self.hosts:
            self.set_clock(name, 0.0)
        for condition in (self.log, self.sql, self.redis, self.table):
            condition.become("ok")
        self.bus.heal()
        self.net.heal_all()

    def entries(self, conversation: ConversationId) -> Sequence[tuple[int, str, str]]:
        """The log as it is stored: (sequence, kind, body)."""
        log = self.bundle.log._logs.get(conversation)  # type: ignore[attr-defined]  # the memory store's inside: no call needed
        return [] if log is None else [(e.sequence, e.kind, e.data.decode()) for e in log.entries]

    def joins(self, conversation: ConversationId, user: UserId) -> Sequence[int]:
        """The numbers of the entries that say that `user` joined, ascending; none for a founder who was never away."""
        mark = f'"user_id":"{user}"'
        return [sequence for sequence, kind, body in self.entries(conversation) if kind == "member.joined" and mark in body]


@contextmanager
def knobs(chance: Random) -> Iterator[None]:
    """Constants of the product, some of them or all made small: what is rare at full size happens often at a small one."""
    is_tight = chance.random() < 0.4

    def one_of(*values: int) -> int:
        return values[0] if is_tight else chance.choice(values)

    page = one_of(3, 200)
    limits = {"group_max": one_of(1, 4, 64), "lane_max": one_of(4, 256), "calls_max": one_of(1, 2, 256)}

    def log_limits(*, total_s: float) -> LogLimits:
        return LogLimits(total_s=total_s, **limits)

    with ExitStack() as stack:
        for module, name, value in (
            (secureconnect.hub.feed, "PAGE", page),
            (secureconnect.hub.replay, "PAGE", page),
            (secureconnect.hub.feed, "HELD_MAX", one_of(4, 16, 256)),
            (secureconnect.hub.digest, "HEADS_MAX", one_of(2, 2_000)),
            (secureconnect.hub.channel, "TURN_ITEMS", one_of(3, 256)),
            (secureconnect.hub.channel, "BLOCK", one_of(1, 256)),
            (secureconnect.hub.pump, "YIELD_EVERY", one_of(1, 256)),
            (secureconnect.node, "LogLimits", log_limits),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


def settings(chance: Random, *, is_quiet: bool) -> Settings:
    """Settings of all nodes, small in some seeds. `is_quiet`: requests shall end before the log has answered, often."""
    total_s, attempt_s = chance.choice(((5.0, 1.5), (5.0, 1.5), (1.0, 0.4)))
    return Settings(
        data_dir=Path("unused"),
        port=0,
        rate_limits=False,
        request_deadline_s=chance.choice((0.8, 0.8, 30.0) if is_quiet else (0.8, 30.0, 30.0)),
        store_deadline_s=total_s,
        store_attempt_deadline_s=attempt_s,
        channel_queue_max=chance.choice((3, 64, 5_000)),
        outbox_messages_max=chance.choice((8, 8, 64, 5_000)),
        outbox_bytes_max=chance.choice((4_096, 65_536, 1 << 20)),
        shutdown_grace_s=chance.choice((1.0, 5.0)),
        socket_ping_s=chance.choice((3.0, 10.0)),
        socket_idle_s=chance.choice((12.0, 60.0)),
    )
