"""Whole nodes in memory on virtual time, whose database, Redis and bus can be taken away from each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
from tests.server.front_kit import HttpClient, Received, request

from secureconnect.backends.bundle import Bundle, Watched
from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.memory.digests import MemoryDigestTable
from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.config import Settings
from secureconnect.errors import BackendDown
from secureconnect.features.auth.model import Login, Registration
from secureconnect.features.auth.passwords import Cost
from secureconnect.hub import TableAway
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.resilience import REDIS, SQL, Stack
from secureconnect.testing.faulty_bus import FaultyBus
from secureconnect.testing.faulty_stores import Wire
from secureconnect.testing.network import MemoryListener
from secureconnect.testing.socket_client import SocketClient
from secureconnect.testing.world import InlineBlocking, World, WorldIds, WorldRng

PASSWORD = "a long password"
SETTINGS = Settings(data_dir=Path("unused"), shutdown_grace_s=0, rate_connect_per_min=1_000)


class LoopClock:
    """Wall time that goes with the loop's."""

    def now_us(self) -> int:
        return 1_768_000_000_000_000 + round(trio.current_time() * 1e6)


class LoopWorld(World):
    """A world in somebody else's loop."""

    def now(self) -> float:
        return trio.current_time()


class Place:
    """Where some data lives. While it `is_away` every call is refused, through the stack as in production."""

    def __init__(self, name: str, stack: Stack) -> None:
        self.name, self.stack = name, stack
        self.is_away = False

    async def answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise BackendDown(self.name)

    async def probe(self) -> None:
        await self.stack.breaker.probe(self.answer)

    def __call__(self, store: object, *, lane: str) -> Any:  # noqa: ANN401  # stands for any store
        return _Guarded(store, self, lane)

    @property
    def watched(self) -> Watched:
        return Watched(self.name, self.probe, self.stack)


class _Guarded:
    def __init__(self, store: object, place: Place, lane: str) -> None:
        self._store, self._place, self._lane = store, place, lane

    def __getattr__(self, name: str) -> object:
        method = getattr(self._store, name)

        async def call(*args: object, **named: object) -> object:
            async def attempt() -> object:
                await self._place.answer()
                return await method(*args, **named)

            return await self._place.stack(attempt, lane=self._lane, changes=False, is_repeatable=False)

        return call


class _Table:
    """A digest table that is away with the database."""

    def __init__(self, table: MemoryDigestTable, place: Place) -> None:
        self._table, self._place = table, place

    async def write(self, node: str, epoch: int, number: int, data: bytes) -> None:
        await self._answer()
        await self._table.write(node, epoch, number, data)

    async def since(self, seen: Any) -> Sequence[bytes]:  # noqa: ANN401  # as the table has it
        await self._answer()
        return await self._table.since(seen)

    async def _answer(self) -> None:
        try:
            await self._place.answer()
        except BackendDown as error:
            raise TableAway(str(error)) from error


class Home:
    """One node with its faces."""

    def __init__(self, name: str, bundle: Bundle, table: MemoryDigestTable, bus: FaultyBus) -> None:
        world, clock = bus.world, LoopClock()
        self.sql = Place("sql", Stack(SQL, random=lambda: 0.5))
        self.redis = Place("redis", Stack(REDIS, random=lambda: 0.5))
        self.bus, self.name = bus, name
        stores = ("users", "sessions", "revocations", "locks", "directory", "log", "announcements")
        guarded: dict[str, Any] = {one: self.sql(getattr(bundle, one), lane="chat") for one in stores}
        conversations = self.sql(bundle.conversations, lane="chat")
        shared = memory_shared(clock, bus.port(name, Wire()))
        self.node = Node(
            replace(
                bundle,
                conversations=conversations,
                digests=_Table(table, self.sql),
                watched=self.sql.watched,
                **guarded,
            ),
            Ports(clock, WorldRng(world, name), WorldIds(world, name), InlineBlocking()),
            SETTINGS,
            secret=b"x" * 32,
            name=NodeId(name),
            shared=replace(
                shared,
                rates=self.redis(MemoryRateStore(clock), lane="command"),
                lockouts=self.redis(shared.lockouts, lane="command"),
                leases=self.redis(shared.leases, lane="command"),
                watched=(self.redis.watched,),
            ),
            epoch=1,
            password_cost=Cost(passes=1, memory_kib=8),
            process=lambda: {"tasks": 1, "fds": 1, "rss_bytes": 1},
        )
        self.listener = MemoryListener()

    def lose(self, *homes: str) -> None:
        """Take them away from this node alone; the bus goes down for all."""
        self.sql.is_away = self.sql.is_away or "sql" in homes
        self.redis.is_away = self.redis.is_away or "redis" in homes
        if "bus" in homes:
            self.bus.go_down()

    def heal(self) -> None:
        self.sql.is_away = self.redis.is_away = False
        self.bus.heal()

    async def ask(self, line: str, login: Login | None = None, body: bytes = b"") -> Received:
        headers = {} if login is None else {"Authorization": f"Bearer {login.access_token}"}
        client = HttpClient(self.listener.connect())
        got = await client.ask(request(line, headers, body))
        client.transport.abort()
        return got

    async def login(self, name: str) -> Login:
        return await self.node.auth.register(Registration(f"{name}@example.org", PASSWORD, name, name))

    async def socket(self, login: Login) -> tuple[SocketClient, dict[str, Any]]:
        """A native socket, and its `hello`."""
        client = SocketClient(self.listener.connect())
        answer = await client.upgrade(headers={"Authorization": f"Bearer {login.access_token}"})
        assert answer.status == 101, answer
        hello: Any = await client.message()
        return client, hello["data"]


async def told(client: SocketClient) -> dict[str, Any]:
    """What the next `degraded` event says of features."""
    while True:
        message: Any = await client.message()
        if message.get("event") == "degraded":
            features: dict[str, Any] = message["data"]["features"]
            return features


async def until(condition: Callable[[], object], *, within_s: float) -> None:
    """On virtual time: it comes true within this."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110  # virtual time costs nothing
            await trio.sleep(0.05)


async def until_told(client: SocketClient, condition: Callable[[dict[str, Any]], bool], *, within_s: float) -> dict[str, Any]:
    with trio.fail_after(within_s):
        while not condition(features := await told(client)):
            pass
    return features


@asynccontextmanager
async def open_nodes(*names: str) -> AsyncIterator[list[Home]]:
    """Nodes of these names on one database, one Redis and one bus."""
    bus = FaultyBus(LoopWorld(1))
    bundle, table = memory_bundle(), MemoryDigestTable()
    homes = [Home(name, bundle, table, bus) for name in names]
    async with trio.open_nursery() as nursery:
        servers = [await nursery.start(home.node.run, home.listener) for home in homes]
        await trio.sleep(5)  # they have met
        yield homes
        for server in servers:
            server.stop()
    for home in homes:
        assert home.node.unexpected() == 0
