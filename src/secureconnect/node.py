"""One node put together: stores, ports and settings in, a server out. The same runs in production and in the simulator.

What is real (files, sockets, threads, the clock) is made by `app`; here nothing of it is named.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from secureconnect import __version__
from secureconnect.backends.appends import Deadlines, run_announcements, run_appends
from secureconnect.backends.bundle import Bundle, Shared, Watched
from secureconnect.backends.deadlines import within_deadline
from secureconnect.backends.memory.disk import MemoryDisk
from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.backends.presence import run_presence
from secureconnect.backends.together import append_together
from secureconnect.config import Settings
from secureconnect.errors import BackendDown, SecureConnectError
from secureconnect.fallback import HOMES, Degradation, Home
from secureconnect.fallback.alone import WAIT_S, Alone
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import Identity
from secureconnect.features.auth.passwords import Cost, Passwords
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.service import Auth
from secureconnect.features.auth.tokens import Tokens
from secureconnect.features.conversations.service import Conversations
from secureconnect.features.conversations.tidings import MembershipSignals
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.service import LOCKED, Lockouts
from secureconnect.features.log.announcer import Announcer
from secureconnect.features.log.lanes import Limits as LogLimits
from secureconnect.features.log.service import Log
from secureconnect.features.log.source import LogSource
from secureconnect.features.messages.service import Messages
from secureconnect.features.presence.service import Presence
from secureconnect.features.rates.service import Rates
from secureconnect.hub import Hub
from secureconnect.ids import ConversationId, NodeId
from secureconnect.observe.metrics import Metrics
from secureconnect.observe.status import FeatureStatus
from secureconnect.ports import Blocking, Clock, Disk, Ids, Listener, Rng
from secureconnect.server import polling
from secureconnect.server.bounds import front_limits, gateway_limits, hub_limits, rates_of
from secureconnect.server.degraded import Board, shown
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.exchange import Exchange
from secureconnect.server.front import Front
from secureconnect.server.health import Dependency, NodeHealth, Prober, Readiness, ledger_object
from secureconnect.server.origins import Origins, TrustedProxies
from secureconnect.server.rate_limits import RateLimiter
from secureconnect.server.router import Router
from secureconnect.server.routes import auth as auth_routes
from secureconnect.server.routes import conversations as conversation_routes
from secureconnect.server.routes import messages as message_routes
from secureconnect.server.routes import presence as presence_routes
from secureconnect.server.routes import system as system_routes
from secureconnect.server.serve import Server
from secureconnect.server.telling import Telling
from secureconnect.server.web import make_app
from secureconnect.server.websocket import Gateway
from secureconnect.server.wire import Response

FOLLOW_PERIOD_S = 1.0
"""Between two looks for the locks that other nodes set: one holds everywhere within 2 s."""
PURGE_PERIOD_S = 600.0
"""Between two sweeps of what ended long ago: login sessions, locks."""
FLUSH_S = 5.0
"""For appends that had begun when the server ended: one store call's deadline."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the simulator replaces, beside the transport and the stores."""

    clock: Clock
    rng: Rng
    ids: Ids
    blocking: Blocking
    disk: Disk = field(default_factory=MemoryDisk)
    """A folder of this node's own. In memory: where nothing must survive the process."""


class Node:
    """The parts, made and wired; `run` owns their tasks. Public attributes are for tests, drills and embedders."""

    def __init__(
        self,
        bundle: Bundle,
        ports: Ports,
        settings: Settings,
        *,
        secret: bytes,
        name: NodeId,
        shared: Shared,
        epoch: int = 0,
        password_cost: Cost = Cost(),  # noqa: B008  # frozen
        process: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        """`shared`: what this node shares with others. `epoch` grows with every start of a node of this name. `process` shows the
        process for health, but for its sockets."""
        bundle = within_deadline(bundle, settings.store_deadline_s)
        self.name, self.settings, self.shared = name, settings, shared
        self._bundle, self._ports = bundle, ports
        self.watched: Mapping[str, Watched] = {one.name: one for one in (bundle.watched, *shared.watched)}
        self.dependencies = {name: _dependency(one) for name, one in self.watched.items()}
        self.status = FeatureStatus()
        self.degradation = Degradation(
            [home for home, name in HOMES.items() if name in self.watched],
            self.status,
            now_s=trio.current_time,
            now_us=ports.clock.now_us,
        )
        self._tokens_known = trio.Event()  # whom not to let in
        self.server: Server | None = None
        self.metrics = Metrics()
        self.readiness = Readiness(is_cut_off=lambda: self.degradation.is_cut_off(self.hub.others_lack()))
        self.hub = Hub(
            node=name,
            random=ports.rng.random,
            limits=hub_limits(settings),
            sources={"conversation:": LogSource(bundle.log)},
            bus=shared.bus,
            digests=bundle.digests,
            epoch=epoch,
            lacks=self.degradation.lacks,
        )
        self._make_features(secret, password_cost)
        self.health = NodeHealth(
            name,
            __version__,
            ports.clock,
            self.readiness,
            self.dependencies,
            lambda: self.telling.queues(),
            lambda: ledger_object(self.hub.ledger),
            lambda: {**process(), "sockets": self.gateway.sockets},
            self.metrics.render,
            lambda: shown(self.status.degraded),
            self.alone.receipts.show,
        )
        rates = Rates(rates_of(settings), MemoryRateStore(ports.clock), shared=shared.rates, nodes=lambda: 1 + self.hub.others)
        self.limiter = RateLimiter(rates, ports.clock, is_on=settings.rate_limits)
        self.dispatcher = Dispatcher(request_deadline_s=settings.request_deadline_s, limiter=self.limiter, observe=self._answered)
        self._make_faces()
        self._tell_of_itself()

    def _make_features(self, secret: bytes, password_cost: Cost) -> None:
        bundle, ports, settings = self._bundle, self._ports, self.settings
        self.access = Access(bundle.conversations, trio.current_time)
        self.log = Log(bundle.log, self.hub, now_s=trio.current_time, limits=LogLimits(total_s=settings.store_deadline_s))
        signals = MembershipSignals(self.access, signal=self.hub.signal)
        self.announcer = Announcer(bundle.announcements, partial(append_together, self.log.append), told=signals.told)
        self.revocations, self.alone = RevocationSet(ports.clock), Alone(ports.disk, ports.blocking, clock=ports.clock)
        self.locks = LockSet(bundle.locks, ports.clock)
        self.lockouts = Lockouts(
            self.shared.lockouts,
            MemoryLockoutStore(ports.clock),
            locks=self.locks,
            clock=ports.clock,
            signal=self.hub.signal,
        )
        self.auth = Auth(
            bundle.users,
            bundle.sessions,
            self.revocations,
            passwords=Passwords(ports.blocking, ports.rng, cost=password_cost),
            tokens=Tokens(secret, ports.clock, access_token_s=settings.access_token_s),
            clock=ports.clock,
            ids=ports.ids,
            rng=ports.rng,
            signal=self.hub.signal,
            guard=self.lockouts,
            refresh_token_s=settings.refresh_token_s,
            sessions_per_user_max=settings.sessions_per_user_max,
            keep=self.alone.keep_ending,
        )
        self.alone.serve(
            self.auth.endings, self.revocations, bundle.revocations, self.access,
            removed=lambda conversation, user: signals.tell(conversation, user, "removed", "removed"),
            access_token_s=settings.access_token_s, deadline_s=settings.store_deadline_s,
        )  # fmt: skip
        self.conversations = Conversations(
            bundle.conversations,
            self.access,
            bundle.directory,
            self.announcer,
            clock=ports.clock,
            ids=ports.ids,
            signal=self.hub.signal,
            publish=self.hub.publish,
        )
        self.messages = Messages(self.log, self.access, clock=ports.clock, ids=ports.ids)
        self.presence = Presence(
            self.shared.leases, self.access, node=self.name, clock=ports.clock, now_s=trio.current_time, send=self.hub.send,
            listeners=self.hub.members, random=ports.rng.random, generation=self.shared.generation,
        )  # fmt: skip

    def _make_faces(self) -> None:
        settings, clock, ids = self.settings, self._ports.clock, self._ports.ids
        self.polls = polling.Polls(
            self.hub, self.access, clock, polls_max=settings.sockets_max, board=self._board, attendance=self.presence
        )
        self.endpoints: Sequence[Endpoint] = (
            *auth_routes.endpoints(self.auth),
            *conversation_routes.endpoints(self.conversations),
            *message_routes.endpoints(self.messages),
            *presence_routes.endpoints(self.presence),
            *polling.endpoints(self.polls),
            *system_routes.endpoints(self.health, lambda: self.endpoints, metrics_token=settings.metrics_token),
        )
        origins = Origins(settings.origins)
        router = Router(self.endpoints)
        self.exchange = Exchange(
            router,
            self.dispatcher,
            authenticate=self._verify,
            clock=clock,
            ids=ids,
            origins=origins,
            proxies=TrustedProxies(settings.trusted_proxies),
            board=self._board,
        )
        self.gateway = Gateway(
            hub=self.hub,
            dispatcher=self.dispatcher,
            endpoints={row.name: row for row in self.endpoints},
            authenticate=self._verify,
            check=self.auth.check,
            access=self.access,
            clock=clock,
            ids=ids,
            node=self.name,
            limits=gateway_limits(settings),
            origins=origins,
            limiter=self.limiter,
            attendance=self.presence,
            board=self._board,
        )
        self.web = make_app(self.exchange, body_bytes_max=settings.request_body_bytes_max)
        self.front = Front(
            self.exchange,
            gateway=self.gateway,
            web=self.web,
            clock=clock,
            limits=front_limits(settings),
            end_waits=self.polls.end_waits,
        )
        self.hub.on_signal("membership", self._membership_changed)
        self.hub.on_signal("session.ended", self.auth.endings.heard)
        self.hub.on_signal(LOCKED, self.locks.heard)

    async def run(self, listener: Listener, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve `listener` until the Server that `task_status` is given is stopped. Requests are accepted when it says started.

        The stores must stay open until this returns. A networked database that is away is waited for: meanwhile the listener says
        that this node lives and is not ready, and every token is refused with 503.
        Raises: BackendDown when an embedded one cannot be read. Cancellation: ends at once; what was acknowledged is stored.
        """
        await self.alone.load()
        is_networked = self._bundle.watched.stack is not None
        if not is_networked:
            await self._load()
        server = self.server = Server(
            listener, self.front, self.gateway, readiness=self.readiness, grace_s=self.settings.shutdown_grace_s
        )
        async with trio.open_nursery() as core:
            await core.start(self._core)
            await core.start(self.gateway.run)
            await core.start(server.run)
            if is_networked:
                await self.alone.wait_for_store(self._load, known=self._tokens_known.set)
            self.readiness.started = True
            task_status.started(server)
            await server.wait_ended()
            with trio.move_on_after(FLUSH_S):
                await self.log.pipeline.drained()
            core.cancel_scope.cancel()

    async def run_core(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Everything but a listener of its own and sockets: for who brings requests in another way (ASGI)."""
        await self.alone.load()
        await self._load()
        await self._core(task_status=task_status)

    async def _core(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        deadlines = Deadlines(attempt_s=self.settings.store_attempt_deadline_s, sweep_s=self.settings.store_deadline_s)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.hub.run)
            await nursery.start(lambda task_status: run_appends(self.log.pipeline, deadlines=deadlines, task_status=task_status))
            nursery.start_soon(lambda: run_announcements(self.announcer, deadlines=deadlines))
            await nursery.start(self.alone.run, self._is_without_sql)
            nursery.start_soon(self._follow, self.locks.follow)
            nursery.start_soon(self._follow, self.lockouts.bring_back)
            nursery.start_soon(lambda: run_presence(self.presence, random=self._ports.rng.random))
            for home in self.degradation.switches:
                if home in self.watched:
                    await nursery.start(self._prober(home).run)
            nursery.start_soon(self._purge)
            task_status.started()

    async def _load(self) -> None:
        """Whom not to let in. Raises: Unavailable."""
        await self.revocations.load(self._bundle.revocations)
        await self.locks.follow()
        self._tokens_known.set()

    def _is_without_sql(self) -> bool:
        """A database that was not reached yet is waited for: that is no outage."""
        return self.readiness.started and self.dependencies["sql"].state == "down"

    def _verify(self, token: str) -> Identity:
        if not self._tokens_known.is_set():
            raise BackendDown("sql", "This node has not reached its database yet", retry_after_s=WAIT_S)
        return self.auth.verify(token)

    def _prober(self, home: Home) -> Prober:
        dependency, watched = self.dependencies[home], self.watched[home]
        clock, stack, random = self._ports.clock, watched.stack, self._ports.rng.random
        attempt_s = stack.policy.attempt_s if stack is not None else self.settings.store_attempt_deadline_s

        def told(seconds: float | None) -> None:  # slower than a call may be is not well, whatever health calls it
            is_well = seconds is not None and seconds <= attempt_s
            self.degradation.probed(home, is_well=is_well, is_down=dependency.state == "down")

        if stack is None:
            return Prober(dependency, watched.probe, clock, told=told)
        return Prober(dependency, watched.probe, clock, pause_s=lambda: stack.breaker.pause_s(random()), told=told)

    async def _follow(self, look: Callable[[], Awaitable[object]]) -> None:
        """What other nodes, or a command line, did and no signal told; what could not be told them."""
        while True:
            await trio.sleep(FOLLOW_PERIOD_S)
            await self._try(look)

    async def _purge(self) -> None:
        while True:
            await trio.sleep(PURGE_PERIOD_S)
            await self._try(self.auth.purge)
            await self._try(self.locks.purge)

    async def _try(self, call: Callable[[], Awaitable[object]]) -> None:
        with suppress(SecureConnectError), trio.move_on_after(self.settings.store_deadline_s):
            await call()

    def _membership_changed(self, data: bytes) -> None:
        self.access.forget(ConversationId(json.loads(data)["conversation_id"]))

    # -- what it tells of itself
    def _tell_of_itself(self) -> None:
        self.telling = Telling(
            self.settings, self.hub, self.dispatcher, self.exchange, self.front, self.gateway, self.polls, self.status,
            self.dependencies, lambda: {**self._bundle.queues(), **self.alone.queues()},
        )  # fmt: skip
        stacks = {name: one.stack for name, one in self.watched.items() if one.stack is not None}
        self.telling.watch(self.metrics, stacks, unexpected=self.unexpected)
        watch = self.metrics.watch
        watch("secureconnect_rate_limited_total", lambda: dict(self.limiter.refused))
        watch("secureconnect_rate_limits_local_total", lambda: self.limiter.rates.local_total)
        watch("auth_account_locked_total", lambda: self.lockouts.locked_total)
        for home, name in HOMES.items():
            if home == name and name in stacks:
                self.degradation.watch_stack(home, stacks[name])
        if "bus" in self.degradation.switches:
            self.degradation.watch_bus(self.hub)
        self.status.listen(self.gateway.board_changed)

    def _board(self) -> Board:
        return self.status.degraded

    def _answered(self, endpoint: Endpoint, context: Context, response: Response, seconds: float) -> None:
        method = endpoint.method if context.via == "http" else "SOCKET"
        self.metrics.answered(method=method, endpoint=endpoint.path, status=response.status, seconds=seconds)

    def unexpected(self) -> int:
        """Exceptions since the start that are bugs: each was logged, answered, and ended nobody else."""
        connections = self.server.unexpected if self.server is not None else 0
        return connections + self.dispatcher.counters.unexpected + self.front.unexpected + self.gateway.counters.unexpected


def _dependency(watched: Watched) -> Dependency:
    circuit = watched.stack.breaker.circuit if watched.stack is not None else None
    return Dependency(watched.name, breaker=lambda: circuit.state if circuit is not None else "closed", pool=watched.pool)
