"""A gateway with a real hub over logs in memory, and clients in memory: what the socket tests play with.

Tokens are what they mean: `alice` is a good token of alice, `alice/phone` one of another login session, `alice/phone/30` one with
30 s to live. Conversations are named by letters; everybody is a member of `a` and `b` unless a test says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.errors import BackendDown, NotAuthenticated
from secureconnect.features.access.model import Membership, Rules, Standing
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import Identity
from secureconnect.features.presence.service import Presence
from secureconnect.hub import Frame, Hub, Item, Page, SourceAway
from secureconnect.ids import ConversationId, NodeId, SessionId, UserId, as_uuid, conversation_channel
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context, Endpoint, NoParams
from secureconnect.server.rate_limits import RateLimiter
from secureconnect.server.websocket import Gateway, GatewayLimits, HandshakeRequest
from secureconnect.testing.network import MemoryTransport, memory_pair
from secureconnect.testing.socket_client import KEY, SocketClient

START_US = 1_768_000_000_000_000
LIFE_S = 900


class Clock:
    """Wall time that runs with the loop's clock."""

    def now_us(self) -> int:
        return START_US + round(trio.current_time() * 1e6)


@dataclass
class Ids:
    """Numbered UUIDs."""

    count: int = 0

    def new(self) -> str:
        self.count += 1
        return as_uuid(self.count.to_bytes(16, "big"))


@dataclass
class Tokens:
    """Who a token means, and which sessions were ended."""

    clock: Clock = field(default_factory=Clock)
    revoked: dict[str, None] = field(default_factory=dict)

    def authenticate(self, token: str) -> Identity:
        user, _, rest = token.partition("/")
        device, _, life_s = rest.partition("/")
        if not user.isalpha():
            raise NotAuthenticated("The token is not valid")
        now_s = self.clock.now_us() // 1_000_000
        session = SessionId(f"{user}-{device or 'main'}")
        identity = Identity(UserId(user), session, user, f"{user}@test", "user", now_s + int(life_s or LIFE_S))
        if identity.expires_at_s <= now_s:
            raise NotAuthenticated("The token's life is over", code="TOKEN_EXPIRED")
        self.check(identity)
        return identity

    def check(self, identity: Identity) -> None:
        if identity.session in self.revoked:
            raise NotAuthenticated("The session was ended", code="TOKEN_REVOKED")


@dataclass
class Members:
    """An `AccessStore`: who is in which conversation, from which sequence on."""

    conversations: dict[str, dict[str, int]] = field(default_factory=dict)
    joined: dict[tuple[str, str], int] = field(default_factory=dict)
    """With which sequence a membership began, by conversation and user, where that is known."""
    is_down: bool = False
    gate: trio.Event | None = None

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        await self._answer()
        members = self.conversations.get(conversation)
        return None if members is None else self._standing(conversation, members, user)

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        await self._answer()
        return [UserId(user) for user in self.conversations.get(conversation, ())]

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        await self._answer()
        return [self._standing(name, members, user) for name, members in self.conversations.items() if user in members]

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        await self._answer()
        mine = [members for members in self.conversations.values() if user in members]
        return [other for other in among if any(other in members for members in mine)]

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.is_down:
            raise BackendDown("sql")

    def _standing(self, conversation: str, members: Mapping[str, int], user: str) -> Standing:
        name = ConversationId(conversation)
        rules = Rules(name, "group", UserId("alice"), is_e2ee_enabled=False, ai_enabled=False, members_may_invite=True)
        first = members.get(user)
        joined = self.joined.get((conversation, user))
        return Standing(rules, None if first is None else Membership(name, UserId(user), "member", 0, first, joined))


@dataclass
class Logs:
    """A `hub.Source` in memory."""

    items: dict[str, list[Item]] = field(default_factory=dict)
    is_away: bool = False
    first: int = 1
    gate: trio.Event | None = None

    async def read(self, channel: str, after: int, limit: int) -> Page:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.is_away:
            raise SourceAway("away")
        log = self.items.get(channel, [])
        start = max(after, self.first - 1)
        return Page(tuple(log[start : start + limit]), len(log), self.first)

    async def heads(self, channels: Sequence[str]) -> Mapping[str, int]:
        await trio.lowlevel.checkpoint()
        return {channel: len(self.items[channel]) for channel in channels if channel in self.items}

    def append(self, conversation: str, data: object = None, kind: str = "message.created") -> Item:
        channel = conversation_channel(ConversationId(conversation))
        log = self.items.setdefault(channel, [])
        sequence = len(log) + 1
        envelope = {"event": kind, "channel": channel, "sequence": sequence, "data": data or {"sequence": sequence}}
        log.append(Item(sequence, Frame(msgspec.json.encode(envelope), channel, kind, sequence)))
        return log[-1]


class EchoParams(msgspec.Struct):
    text: str = ""


@dataclass
class World:
    """One node: hub, gateway, and the operations `echo`, `wait` (until a test lets it), `wait.aside` and `fail`."""

    hub: Hub
    gateway: Gateway
    dispatcher: Dispatcher
    access: Access
    presence: Presence
    """It is told of sockets; a test that wants more runs its tasks."""
    members: Members
    logs: Logs
    tokens: Tokens
    nursery: trio.Nursery
    gateway_scope: trio.CancelScope
    log: list[str]
    """What the operations did, in order."""
    gates: dict[str, trio.Event]
    """`wait` returns when the event of its text is set."""

    def stop_gateway(self) -> None:
        """Cancel the gateway's `run`."""
        self.gateway_scope.cancel()

    def post(self, conversation: str, data: object = None, kind: str = "message.created") -> int:
        """Append to a conversation's log and commit it to the hub; returns the sequence."""
        item = self.logs.append(conversation, data, kind)
        self.hub.commit(conversation_channel(ConversationId(conversation)), [item])
        return item.sequence

    def join(self, conversation: str, user: str, first: int = 1, *, joined: int | None = None) -> None:
        """`joined`: the sequence of the entry that says so, if it is known."""
        self.members.conversations.setdefault(conversation, {})[user] = first
        if joined is not None:
            self.members.joined[conversation, user] = joined
        self._membership(conversation, user, "added")

    def remove(self, conversation: str, user: str, reason: str | None = None) -> None:
        """`reason`: None as nodes of the first release say it, without one."""
        del self.members.conversations[conversation][user]
        self._membership(conversation, user, "removed", {} if reason is None else {"reason": reason})

    def _membership(self, conversation: str, user: str, change: str, more: Mapping[str, str] = {}) -> None:
        self.access.forget(ConversationId(conversation))
        data = {"conversation_id": conversation, "user_id": user, "change": change, **more}
        self.hub.signal("membership", msgspec.json.encode(data))

    def end_session(self, user: str, device: str = "main", reason: str = "logout") -> None:
        session = f"{user}-{device}"
        self.tokens.revoked[session] = None
        data = {"session_id": session, "user_id": user, "reason": reason}
        self.hub.signal("session.ended", msgspec.json.encode(data))

    def begin(
        self,
        token: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        window_bytes: int = 65_536,
        most_per_send: int | None = None,
    ) -> SocketClient:
        """A client whose handshake the server is about to answer; `token` goes into the header."""
        mine, served = memory_pair(window_bytes=window_bytes, most_per_send=most_per_send)
        usual = {
            "host": "chat.test",
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": KEY,
        }
        if token is not None:
            usual["authorization"] = f"Bearer {token}"
        request = HandshakeRequest("GET", "/v1/ws", query or {}, {**usual, **(headers or {})}, served.peer, "1.1")
        self.nursery.start_soon(self._serve, request, served)
        return SocketClient(mine)

    async def _serve(self, request: HandshakeRequest, transport: MemoryTransport) -> None:
        await self.gateway.serve(request, transport, b"")
        assert transport.aborted, "nothing is left of a socket that was served"

    async def connect(self, token: str = "alice", **how: int) -> SocketClient:
        """A client that is authenticated and has read `hello`."""
        client = self.begin(token, **how)  # type: ignore[arg-type]  # window_bytes and most_per_send
        answer = await client.upgraded()
        assert answer.status == 101, answer
        assert (await client.message())["event"] == "hello"
        return client


def rows(log: list[str], gates: dict[str, trio.Event]) -> list[Endpoint]:
    async def echo(context: Context, params: EchoParams) -> object:
        log.append(f"echo {params.text}")
        return {"text": params.text, "user": context.me.user}

    async def wait(context: Context, params: EchoParams) -> object:
        log.append(f"begin {params.text}")
        if context.placed is not None:
            context.placed()
        await gates.setdefault(params.text, trio.Event()).wait()
        log.append(f"end {params.text}")
        return {"text": params.text}

    async def fail(context: Context, params: NoParams) -> object:
        raise RuntimeError("a bug")

    def row(
        name: str,
        call: Callable[..., Awaitable[object]],
        params: type[msgspec.Struct],
        *,
        parallel: bool = False,
        overlaps: bool = False,
        socket: bool = True,
    ) -> Endpoint:
        return Endpoint(
            name=name,
            method="POST",
            path=f"/v1/{name}",
            params=params,
            call=call,
            parallel=parallel,
            overlaps=overlaps,
            socket=socket,
        )

    return [
        row("echo", echo, EchoParams),
        row("wait", wait, EchoParams),
        row("wait.aside", wait, EchoParams, parallel=True),
        row("wait.placed", wait, EchoParams, overlaps=True),
        row("fail", fail, NoParams),
        row("http.only", echo, EchoParams, socket=False),
    ]


@asynccontextmanager
async def open_world(
    limits: GatewayLimits | None = None, *, members: Sequence[str] = ("alice", "bob"), limiter: RateLimiter | None = None
) -> AsyncIterator[World]:
    """A running node. At the end everything must have been released: sockets, places, the ledger's account."""
    tokens, log, gates = Tokens(), list[str](), dict[str, trio.Event]()
    store, logs = Members({name: dict.fromkeys(members, 1) for name in ("a", "b")}), Logs()
    access = Access(store, trio.current_time)
    hub = Hub(node="n1", sources={"conversation:": logs}, random=lambda: 0.5)
    dispatcher = Dispatcher(limiter=limiter)
    presence = Presence(
        MemoryLeaseStore(tokens.clock),
        access,
        node=NodeId("n1"),
        clock=tokens.clock,
        now_s=trio.current_time,
        send=hub.send,
        listeners=hub.members,
        random=lambda: 0.5,
    )
    gateway = Gateway(
        hub=hub,
        dispatcher=dispatcher,
        endpoints={row.name: row for row in rows(log, gates)},
        authenticate=tokens.authenticate,
        check=tokens.check,
        access=access,
        clock=tokens.clock,
        ids=Ids(),
        node="n1",
        limits=limits or GatewayLimits(),
        limiter=limiter,
        attendance=presence,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        scope = trio.CancelScope()
        await nursery.start(_run_inside, scope, gateway)
        async with trio.open_nursery() as sockets:
            yield World(hub, gateway, dispatcher, access, presence, store, logs, tokens, sockets, scope, log, gates)
            sockets.cancel_scope.cancel()
        assert gateway.sockets == 0
        assert gateway.counters.unexpected == 0
        assert hub.ledger.balances
        assert hub.ledger.pending == 0
        nursery.cancel_scope.cancel()


async def _run_inside(
    scope: trio.CancelScope, gateway: Gateway, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with scope:
        await gateway.run(task_status=task_status)
