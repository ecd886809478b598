"""A world of 1–3 nodes of the real chain – front, gateway, session, dispatch, features, feed, hub – and clients that speak to it
over wires; one seed decides everything. The checks look from outside: at the log, and at what each client was given and when.

*Late* counts from the latest of: a node learnt that the entry is stored, the client's subscription was answered, the end of the
client's own pause, the end of a fault of the log store (nothing is promised while the log cannot be read).
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import msgspec
import trio
from tests.simulation.bugs import planted

from secureconnect.backends.bundle import Bundle
from secureconnect.backends.memory.bundle import memory_bundle
from secureconnect.backends.memory.digests import MemoryDigestTable
from secureconnect.config import Settings
from secureconnect.features.auth.model import Registration
from secureconnect.features.auth.passwords import Cost
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.conversations.service import NewConversation
from secureconnect.hub import channel as hub_channel
from secureconnect.ids import ConversationId, NodeId
from secureconnect.node import Node, Ports
from secureconnect.ports import Transport
from secureconnect.testing.determinism import InlineBlocking, World, WorldClock, WorldIds, WorldRng, simulate
from secureconnect.testing.faults import FaultyBus, FaultyLog, Mode, Wire
from secureconnect.testing.socket_client import Ended, SocketClient

LATE_S = 10.0
REQUEST_S = 30.5
STORE_CALL_S = 5.0
TURN_ITEMS = 16
"""Of the hub's pump here, instead of 256: a small world must reach its bounds."""
SECRET = b"a secret of thirty-two bytes or more"
FAULTS = ("slow", "hang", "fail", "half", "zombie", "drop", "late", "down", "mute", "cut", "crash", "reset", "hold", "pause")
STORE_MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a world is. `only`: the one kind of fault, else each seed has its own subset."""

    nodes: int = 2
    clients: int = 4
    conversations: int = 2
    sends: int = 6
    faulty_s: float = 10.0
    only: str | None = None
    skip: frozenset[int] = frozenset()
    """Faults by number that do not happen, for shrinking."""


BIG = Plan(nodes=3, clients=16, conversations=5, sends=6, faulty_s=20.0)


class Door:
    """A `ports.Listener` for wires."""

    url = "http://node"

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Transport](100)

    def arrive(self, transport: Transport) -> None:
        self._send.send_nowait(transport)

    async def accept(self) -> Transport:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise OSError("closed") from None

    def close(self) -> None:
        self._send.close()


@dataclass(eq=False)
class Site:
    """One node's machine: what runs there now, if anything."""

    name: str
    starts: int = 0
    node: Node | None = None
    door: Door | None = None
    scope: trio.CancelScope | None = None
    wires: dict[Wire, None] = field(default_factory=dict)
    unexpected: int = 0


class Client:
    """Connects anywhere, resumes, sends with a key and retries under it, polls sometimes, pauses, and keeps the books."""

    def __init__(self, chain: Chain, name: str) -> None:
        self.chain, self.name, self.rng = chain, name, chain.world.rng(name)
        self.token = ""
        self.got: dict[str, list[int]] = {}
        self.pending: dict[str, tuple[str, str]] = {}
        self.acked: dict[str, tuple[str, int]] = {}
        self.ready_s = 0.0
        self.paused_until_s = 0.0
        self.wire: Wire | None = None
        self._asked: dict[str, float] = {}

    async def live(self) -> None:
        while not self.chain.is_over:
            site = self.rng.choice(self.chain.sites)
            if site.node is not None and site.door is not None:
                try:
                    await self.visit(site)
                except* (Ended, OSError, trio.TooSlowError):
                    self.chain.world.sometimes("visit ended")
            self.wire = None
            await trio.sleep(self.rng.uniform(0.02, 0.4))

    async def visit(self, site: Site) -> None:
        wire = self.wire = self.chain.dial(site)
        client = SocketClient(wire.near)
        try:
            if self.rng.random() < 0.15:
                await self.poll(client)
                return
            with trio.fail_after(12):
                answered = await client.upgrade(headers={"Authorization": f"Bearer {self.token}"})
            if answered.status != 101:
                self.chain.world.sometimes(f"refused {answered.status}")
                return
            await self.talk(client)
        finally:
            wire.near.abort()
            self._asked.clear()

    async def talk(self, client: SocketClient) -> None:
        after = {channel: len(seen) for channel, seen in self.got.items()}
        await client.say({"id": "sub", "method": "subscribe", "params": {"channels": list(self.got), "after": after}})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.retry, client)
            while not self.chain.is_over:
                if self.chain.world.now() < self.paused_until_s:
                    await trio.sleep_until(self.paused_until_s)
                with trio.fail_after(40):
                    self.take(await client.message())
            nursery.cancel_scope.cancel()

    async def retry(self, client: SocketClient) -> None:
        """What is not acknowledged goes out again on this connection, once in a while, under its key."""
        while True:
            for key, (channel, text) in list(self.pending.items()):
                if key not in self._asked:
                    self._asked[key] = self.chain.world.now()
                    params = {"conversation_id": channel.removeprefix("conversation:"), "content": text, "client_message_id": key}
                    with suppress(OSError):
                        await client.say({"id": key, "method": "messages.send", "params": params})
                    if self.rng.random() < 0.2:  # somebody who does not care about the answer
                        self.pending.pop(key)
            await trio.sleep(0.2)

    def take(self, frame: dict[str, Any]) -> None:
        if frame.get("id") == "sub" and "result" in frame:
            self.ready_s = self.chain.world.now()
            for channel, place in frame["result"]["channels"].items():
                if channel in self.got and "error" not in place and not place["recovered"]:
                    self.chain.world.violate("not recovered", f"{self.name} {channel} {place}")
            if any("error" in place for place in frame["result"]["channels"].values()):
                raise OSError("subscription refused")  # come back and try again
        elif frame.get("id") == "sub":
            raise OSError("subscription refused")
        elif frame.get("id") in self._asked:
            self.answered(str(frame["id"]), frame)
        elif "sequence" in frame:
            self.given(str(frame["channel"]), int(frame["sequence"]))

    def answered(self, key: str, frame: dict[str, Any]) -> None:
        took_s = self.chain.world.now() - self._asked.pop(key)
        if took_s > REQUEST_S:
            self.chain.world.violate("request", f"{self.name} {key} took {took_s:.1f} s")
        if "result" in frame and key in self.pending:
            channel, _ = self.pending.pop(key)
            self.acked[frame["result"]["message_id"]] = (channel, frame["result"]["sequence"])
            self.chain.world.trace("acked", self.name, key, frame["result"]["sequence"])
        elif "error" in frame:
            self.chain.world.sometimes(f"send {frame['error']['code']}")
            if not frame["error"]["retryable"]:
                self.chain.world.violate("refused", f"{self.name} {key} {frame['error']}")

    def given(self, channel: str, sequence: int) -> None:
        seen, world = self.got[channel], self.chain.world
        if sequence != len(seen) + 1:
            world.violate("order", f"{self.name} {channel} got {sequence} after {len(seen)}")
        seen.append(sequence)
        self.chain.arrived(self, channel, sequence)

    async def poll(self, client: SocketClient) -> None:
        """One long-poll instead of a socket."""
        self.chain.world.sometimes("poll")
        after = {channel: len(seen) for channel, seen in self.got.items()}
        body = msgspec.json.encode({"channels": list(self.got), "after": after, "wait_s": self.rng.choice((0, 2))})
        lines = (
            "POST /v1/realtime/poll HTTP/1.1",
            "Host: node",
            f"Authorization: Bearer {self.token}",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join([*lines, "", ""])
        self.ready_s = max(self.ready_s, self.chain.world.now())
        await client.send(head.encode() + body)
        with trio.fail_after(12):
            answered = await client.upgraded()
        if answered.status == 200:
            for frame in msgspec.json.decode(answered.body)["data"]["events"]:
                if "sequence" in frame:
                    self.given(str(frame["channel"]), int(frame["sequence"]))

    async def write(self, sends: int, until_s: float) -> None:
        for number, at_s in enumerate(sorted(self.rng.uniform(0.2, until_s) for _ in range(sends))):
            await trio.sleep_until(at_s)
            self.pending[f"{self.name}-{number}"] = (self.rng.choice(list(self.got)), "x" * self.rng.choice((1, 50, 3000)))


class Chain:
    """The world of one seed."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.is_over = False
        self.sites = [Site(f"n{i}") for i in range(plan.nodes)]
        self.clients = [Client(self, f"c{i}") for i in range(plan.clients)]
        self.late: list[float] = []
        self.faults: list[str] = []
        self.nursery: trio.Nursery
        self.log: FaultyLog
        self.bus: FaultyBus
        self.bundle: Bundle
        knobs = world.rng("knobs")
        self.settings = Settings(
            data_dir=Path("unused"), port=0, shutdown_grace_s=0, rate_limits=False, access_token_s=86_400,
            channel_queue_max=knobs.choice((8, 5000)),
            outbox_messages_max=knobs.choice((8, 5000)),
            outbox_bytes_max=knobs.choice((8192, 1 << 20)),
            request_deadline_s=knobs.choice((1.0, 30.0)),
        )  # fmt: skip

    async def run(self, world: World) -> None:
        async with trio.open_nursery() as self.nursery:
            spawn = self.nursery.start_soon
            plain = memory_bundle(digests=MemoryDigestTable())
            self.log, self.bus = FaultyLog(world, plain.log, spawn), FaultyBus(world, spawn)
            self.bundle = replace(plain, log=self.log)
            for site in self.sites:
                await self.nursery.start(self.keep, site)
            await self.settle_people()
            spawn(self.watch)
            for client in self.clients:
                spawn(client.live)
                spawn(client.write, self.plan.sends, world.now() + self.plan.faulty_s)
            await self.nemesis(world.now() + self.plan.faulty_s)
            await self.heal_and_converge()
            self.check()
            self.is_over = True
            await self.leave()
            self.nursery.cancel_scope.cancel()

    async def settle_people(self) -> None:
        node = self.sites[0].node
        assert node is not None
        people = []
        for client in self.clients:
            login = await node.auth.register(
                Registration(f"{client.name}@example.org", "a long password", client.name, client.name + "_x")
            )
            client.token = login.access_token
            people.append(login.user.id)
        for number in range(self.plan.conversations):
            size = min(len(people), max(2, self.world.rng("rooms").randint(2, len(people))))
            members = sorted(self.world.rng("rooms").sample(range(len(people)), size))
            ids = [people[m] for m in members]
            settings = SettingsChange(is_e2ee_enabled=False)
            new = NewConversation(type="group", title=f"room {number}", participant_ids=ids, settings=settings)
            made, _ = await node.conversations.create(people[members[0]], new)
            for m in members:
                self.clients[m].got[f"conversation:{made.conversation.id}"] = []
        self.clients = [client for client in self.clients if client.got]

    # -- nodes
    async def keep(self, site: Site, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        site.starts += 1
        world, name = self.world, f"{site.name}.{site.starts}"
        ports = Ports(WorldClock(world), WorldRng(world, name), WorldIds(world, name), InlineBlocking())
        node = Node(
            self.bundle, ports, self.settings, secret=SECRET, name=NodeId(site.name), epoch=site.starts,
            bus=self.bus.at(site.name), password_cost=Cost(passes=1, memory_kib=8),
        )  # fmt: skip
        door = Door()
        with trio.CancelScope() as site.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run, door)
                site.node, site.door = node, door
                task_status.started()
        site.unexpected += node.unexpected()
        site.node = site.door = None

    def dial(self, site: Site) -> Wire:
        assert site.door is not None
        wire = Wire(self.world, client=f"10.0.0.1:{len(site.wires) + 1}")
        site.wires[wire] = None
        self.nursery.start_soon(self._carry, site, wire)
        site.door.arrive(wire.far)
        return wire

    async def _carry(self, site: Site, wire: Wire) -> None:
        await wire.run()
        site.wires.pop(wire, None)

    async def crash(self, site: Site, down_s: float) -> None:
        """A power cut: the wires are dead before anything unwinds."""
        if site.node is None or site.scope is None:
            return
        self.world.sometimes("crash")
        for wire in list(site.wires):
            wire.reset()
        self.bus.cut(site.name)
        site.scope.cancel()
        await trio.sleep(down_s)
        while site.node is not None:  # noqa: ASYNC110  # virtual time: nothing is spent
            await trio.sleep(0.01)
        await self.nursery.start(self.keep, site)

    # -- faults
    async def nemesis(self, until_s: float) -> None:
        rng = self.world.rng("nemesis")
        kinds = [k for k in FAULTS if k == self.plan.only or (self.plan.only is None and rng.random() < 0.4)]
        rate_s = rng.choice((0.5, 1, 2))
        number = 0
        while kinds and self.world.now() < until_s and self.plan.only != "none":
            await trio.sleep(rng.expovariate(1 / rate_s))
            kind, seconds = rng.choice(kinds), rng.uniform(0.3, 5)
            site, client, share = rng.choice(self.sites), rng.choice(self.clients), rng.choice((0.2, 0.6, 1.0))
            number += 1
            self.faults.append(kind)
            if number not in self.plan.skip:
                self.world.trace("fault", number, kind, site.name, client.name)
                self.nursery.start_soon(self.fault, kind, seconds, site, client, share)
        await trio.sleep_until(until_s)

    async def fault(self, kind: str, seconds: float, site: Site, client: Client, share: float) -> None:
        self.world.sometimes(f"fault {kind}")
        if kind in STORE_MODES:
            self.log.set_mode(kind)
            await trio.sleep(seconds)
            self.log.set_mode("ok")
        elif kind == "drop":
            self.bus.drop = share
            await trio.sleep(seconds)
            self.bus.drop = 0.0
        elif kind == "late":
            self.bus.late_s = 0.4
            await trio.sleep(seconds)
            self.bus.late_s = 0.004
        elif kind == "down":
            self.bus.is_down = True
            self.bus.cut()
            await trio.sleep(seconds)
            self.bus.is_down = False
        elif kind == "mute":
            self.bus.mute[site.name] = None
            await trio.sleep(seconds)
            self.bus.mute.pop(site.name, None)
        elif kind == "cut":
            self.bus.cut(site.name)
        elif kind == "crash":
            await self.crash(site, seconds)
        elif kind == "reset" and client.wire is not None:
            client.wire.reset()
        elif kind == "hold" and client.wire is not None:
            wire, event = client.wire, trio.Event()
            wire.held = event
            await trio.sleep(seconds)
            client.paused_until_s = max(client.paused_until_s, self.world.now())
            wire.held = None
            event.set()
        elif kind == "pause":
            client.paused_until_s = max(client.paused_until_s, self.world.now() + seconds * 2)

    async def heal_and_converge(self) -> None:
        await trio.sleep(12)  # faults under way end by themselves; crashed nodes come back
        self.log.set_mode("ok")
        with trio.move_on_after(60):
            while any(client.pending for client in self.clients):  # noqa: ASYNC110  # virtual time
                await trio.sleep(0.5)
        await trio.sleep(LATE_S + 4)

    async def leave(self) -> None:
        await trio.sleep(45)
        for site in self.sites:
            if site.node is None:
                continue
            left = site.node.hub.statistics()
            if left.peers or left.places or site.node.gateway.sockets or site.node.front.connections:
                self.world.violate("left over", f"{site.name} {left.peers} peers {site.node.gateway.sockets} sockets")

    async def watch(self) -> None:
        """No line in front of a socket grows beyond its bound (and what one turn of the pump brings to an empty line)."""
        while True:
            await trio.sleep(0.1)
            for site in self.sites:
                for socket in list(site.node.gateway._sockets) if site.node else ():
                    outbox = socket.connection._outbox
                    if outbox is not None and outbox.messages > self.settings.outbox_messages_max + TURN_ITEMS:
                        self.world.violate("bound", f"{site.name} {outbox.messages} messages wait for one socket")

    # -- checks
    def arrived(self, client: Client, channel: str, sequence: int) -> None:
        told_s = self.log.told_s.get((ConversationId(channel.removeprefix("conversation:")), sequence))
        if told_s is None or self.log.mode != "ok":
            return
        late_s = self.world.now() - max(told_s, client.ready_s, client.paused_until_s, self.log.healed_s)
        self.late.append(late_s)
        if late_s > LATE_S:
            self.world.violate("late", f"{client.name} {channel} {sequence} by {late_s:.1f} s")

    def check(self) -> None:
        world = self.world
        if self.log.longest_s > STORE_CALL_S + 0.001:
            world.violate("store call", f"{self.log.longest_s:.2f} s")
        logs = self.bundle.log._store._logs  # type: ignore[attr-defined]  # the memory store behind the faults, read from outside
        place: dict[str, tuple[str, int]] = {}
        for conversation, log in logs.items():
            numbers = [entry.sequence for entry in log.entries]
            if numbers != list(range(1, len(numbers) + 1)):
                world.violate("hole", f"{conversation} {numbers}")
            for key, count in Counter(entry.key for entry in log.entries).items():
                if count > 1:
                    world.violate("stored twice", f"{conversation} {key}")
            texts = Counter(self._sent_key(entry.data) for entry in log.entries if entry.message_number)
            for key, count in texts.items():
                if count > 1:
                    world.violate("sent twice", f"{conversation} {key} {count} times")
            place |= {entry.message: (f"conversation:{conversation}", entry.sequence) for entry in log.entries if entry.message}
        for client in self.clients:
            if client.pending:
                world.violate("not sent", f"{client.name} {list(client.pending)}")
            for message, where in client.acked.items():
                if place.get(message) != where:
                    world.violate("acked, not stored there", f"{client.name} {message} {where} {place.get(message)}")
            for channel, seen in client.got.items():
                tail = len(logs[ConversationId(channel.removeprefix("conversation:"))].entries)
                if len(seen) != tail:
                    world.violate("lost", f"{client.name} {channel} has {len(seen)} of {tail}")
        for site in self.sites:
            unexpected = site.unexpected + (site.node.unexpected() if site.node else 0)
            if unexpected:
                world.violate("unexpected", f"{site.name} {unexpected} exceptions")
            if site.node is not None and not site.node.hub.ledger.balances:
                world.violate("ledger", site.name)

    @staticmethod
    def _sent_key(data: bytes) -> str:
        return str(msgspec.json.decode(data)["client_message_id"])


def run_seed(seed: int, plan: Plan | None = None, *, bug: str | None = None, keep: bool = False) -> tuple[World, Chain]:
    """One seed's world, run to its end. Without a plan the seed chooses a small one."""
    world = World(seed, keep=keep)
    chosen = plan or Plan(nodes=world.rng("plan").choice((1, 2, 3)))
    chain = Chain(world, chosen)
    with planted(bug), patch.object(hub_channel, "TURN_ITEMS", TURN_ITEMS):
        simulate(world, chain.run)
    return world, chain
