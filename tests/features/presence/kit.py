"""Nodes that share leases, driven by hand: the time passes when a test says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio
from anyio.lowlevel import checkpoint

from secureconnect.errors import BackendDown, OutcomeUnknown
from secureconnect.features.access.model import Membership, Rules, Standing
from secureconnect.features.access.service import Access
from secureconnect.features.presence.service import Presence
from secureconnect.features.presence.store import LEASE_S, Change, LeaseStore, Sighting
from secureconnect.hub import Frame
from secureconnect.ids import ConversationId, NodeId, UserId

ANN, BOB, EVE = UserId("ann"), UserId("bob"), UserId("eve")
START_US = 1_768_000_000_000_000
ROUND_S = 0.5


@dataclass
class Time:
    """Monotonic and wall time that run together."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def now_us(self) -> int:
        return START_US + round(self.seconds * 1e6)


@dataclass
class Members:
    """An `AccessStore`: who is in which conversation."""

    conversations: Mapping[str, Sequence[UserId]]
    is_down: bool = False
    gate: trio.Event | None = None

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        await self._answer()
        return self._standing(conversation, user) if conversation in self.conversations else None

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        await self._answer()
        return self.conversations.get(conversation, ())

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        await self._answer()
        return [self._standing(name, user) for name, members in self.conversations.items() if user in members]

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        await self._answer()
        mine = [members for members in self.conversations.values() if user in members]
        return [other for other in among if any(other in members for members in mine)]

    async def _answer(self) -> None:
        await checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.is_down:
            raise BackendDown("sql")

    def _standing(self, conversation: str, user: UserId) -> Standing:
        name = ConversationId(conversation)
        rules = Rules(name, "group", ANN, is_e2ee_enabled=False, ai_enabled=False, members_may_invite=True)
        is_member = user in self.conversations[conversation]
        return Standing(rules, Membership(name, user, "member", 0) if is_member else None)


@dataclass
class Unsteady:
    """A lease store that is away, or whose answers to one method are lost, when a test says so; `calls` counts the tries."""

    store: LeaseStore
    is_away: bool = False
    loses_answers_of: str = ""
    calls: list[str] = field(default_factory=list)

    async def hold(self, node: str, users: Sequence[UserId], *, lease_s: float = LEASE_S) -> Change:
        self._begin("hold")
        return self._end(await self.store.hold(node, users, lease_s=lease_s))

    async def release(self, node: str, users: Sequence[UserId]) -> Change:
        self._begin("release")
        return self._end(await self.store.release(node, users))

    async def expire(self) -> Change:
        self._begin("expire")
        return self._end(await self.store.expire())

    async def look(self, users: Sequence[UserId]) -> Sequence[Sighting]:
        self._begin("look")
        return await self.store.look(users)

    def _begin(self, name: str) -> None:
        self.calls.append(name)
        if self.is_away:
            raise BackendDown("redis")

    def _end(self, change: Change) -> Change:
        if self.calls[-1] == self.loses_answers_of:
            raise OutcomeUnknown("lost")
        return change


@dataclass(frozen=True)
class Told:
    """One event that a node sent."""

    node: str
    channel: str
    user: str
    status: str
    more: Mapping[str, object]


class House:
    """Nodes over one store. `told`: every event that they sent, in order."""

    def __init__(self, store: LeaseStore, time: Time, *, generation: Callable[[], int] = int) -> None:
        self.store, self.time, self.told = store, time, list[Told]()
        self.members = Members({"lunch": [ANN, BOB]})
        self.listeners = 1
        """In each channel."""
        self.nodes: dict[str, Presence] = {}
        self._generation = generation

    def start(self, name: str, store: LeaseStore | None = None) -> Presence:
        def send(channel: str, frame: Frame, *, coalesce: str | None = None) -> None:
            envelope = json.loads(frame.payload)
            assert (envelope.pop("event"), envelope.pop("channel")) == (frame.event, channel) == ("presence.changed", channel)
            data = envelope.pop("data")
            assert envelope == {}
            assert coalesce == f"presence:{data['user_id']}"
            self.told.append(Told(name, channel, data.pop("user_id"), data.pop("status"), data))

        node = self.nodes[name] = Presence(
            store or self.store,
            Access(self.members, self.time),
            node=NodeId(name),
            clock=self.time,
            now_s=self.time,
            send=send,
            listeners=lambda channel: range(self.listeners),
            random=lambda: 0.5,
            generation=self._generation,
        )
        return node

    async def wait(self, seconds: float) -> None:
        """Let the time pass, in rounds of all nodes."""
        for _ in range(round(seconds / ROUND_S)):
            self.time.seconds += ROUND_S
            for node in list(self.nodes.values()):
                await node.lease()
            for node in list(self.nodes.values()):
                if not self.members.is_down:
                    await node.tell()

    def heard(self) -> list[tuple[str, str]]:
        """Who was told to be what since the last question."""
        told, self.told = self.told, []
        return [(one.user, one.status) for one in told]
