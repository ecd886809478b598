"""The native protocol on one socket (interface.md §5): the shell around `Session`, which says what a frame means.

The reader gives messages one by one and never waits for a store: a command in turn runs in one task that exists while there is
one, `parallel` ones each in a task of their own. The only thing the reader waits for is room for further commands, and, once, the
hub's place in one's own channel, which stands between a good token and `hello`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import trio

from secureconnect.errors import BadRequest, Forbidden, NotAuthenticated, SecureConnectError, Unavailable
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import Identity
from secureconnect.hub import Hub
from secureconnect.ids import ConnectionId, RequestId, user_channel
from secureconnect.ports import Clock, Ids, Transport, rfc3339
from secureconnect.server.admission import Beginning, Start
from secureconnect.server.connection import Connection, Shared
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Endpoint
from secureconnect.server.session import (
    Authenticate,
    Command,
    CommandId,
    Effect,
    Pong,
    Run,
    RunAside,
    Say,
    Session,
    event,
    refusal,
)
from secureconnect.server.websocket_frames import POLICY, TEXT, TRY_LATER, server_frame
from secureconnect.server.websocket_subscriptions import HOLD_S, SocketContext, Subscriptions
from secureconnect.server.wire import Response, encode, socket_answer

FOLLOW_RETRY_S = (2.0, 10.0)
"""Between tries to join a conversation that the user was added to, while access or its log cannot be asked: first, longest. There
is no last try: the socket was promised all."""
_CLOSE_WORDS = {"TOKEN_EXPIRED": "token_expired", "TOKEN_REVOKED": "token_revoked"}
ENDED_WORDS = {"banned": "banned"}
"""Reasons of `session.ended` that have a close word of their own."""


@dataclass(slots=True)
class Office:
    """What all native sockets of a gateway work with."""

    hub: Hub
    dispatcher: Dispatcher
    methods: Mapping[str, Endpoint]
    authenticate: Callable[[str], Identity]
    check: Callable[[Identity], None]
    access: Access
    clock: Clock
    ids: Ids
    node: str
    degraded: Callable[[], Mapping[str, object]]
    enter: Callable[[NativeSocket, Identity], None]
    """Told in the very step in which a socket got its identity, so that no signal about it is missed."""


class NativeSocket:
    """One client's conversation with the server. A `Receiver`."""

    __slots__ = (
        "_address", "_answered", "_begun", "_goodbye", "_held_until_s",
        "_office", "_opening", "_room", "_session", "_shared", "_subscriptions",
        "_to_follow", "_turns", "connection", "id", "identity",
    )  # fmt: skip

    def __init__(self, transport: Transport, office: Office, shared: Shared, *, address: str) -> None:
        """`address`: the client's, behind whatever proxies are trusted."""
        limits = shared.limits
        self._address = address
        self.id = ConnectionId(office.ids.new())
        self.identity: Identity | None = None
        self.connection = Connection(transport, shared, self)
        self._office = office
        self._shared = shared
        self._session = Session(office.methods, waiting_max=limits.commands_waiting_max, aside_max=limits.commands_aside_max)
        self._subscriptions: Subscriptions | None = None
        self._opening: CommandId | None = None
        self._begun = self._answered = 0  # commands in turn, counted as they begin and as their answers leave
        self._turns: dict[int, trio.Event] | None = None  # who waits for an answer before theirs, by that count
        self._room: trio.Event | None = None
        self._goodbye: str | None = None  # the word to close with when what is under way is answered
        self._held_until_s = math.inf
        self._to_follow: dict[str, Beginning] | None = None

    # -- from the connection

    def received(self, payload: bytes, *, is_text: bool) -> bool:
        if is_text:
            self._do(self._session.received(payload))
        else:
            self.say(refusal(None, BadRequest("Commands are text frames")))
        return self._opening is None and not self._session.is_full

    async def caught_up(self) -> None:
        if self._opening is not None:
            command_id, self._opening = self._opening, None
            await self.open(command_id)
        while self._session.is_full:
            self._room = trio.Event()
            await self._room.wait()

    def due(self, now_s: float) -> float:
        if now_s < self._held_until_s:
            return self._held_until_s
        self._held_until_s = math.inf
        if self._subscriptions is not None and not self.connection.is_closing:
            self._subscriptions.release()
        return math.inf

    def ended(self) -> None:
        self._session.close()
        self._wake_reader()
        for turn in (self._turns or {}).values():
            turn.set()

    # -- authentication

    def admit(self, identity: Identity) -> None:
        """The token was good, the first one or a fresh one of the same user."""
        self.identity = identity
        self.connection.limit_messages(self._shared.limits.message_bytes_max)
        life_s = identity.expires_at_s - self._office.clock.now_us() / 1e6
        self.connection.end_at(trio.current_time() + life_s, "token_expired")
        self._office.enter(self, identity)

    async def open(self, answer_to: CommandId | None) -> None:
        """Begin to serve: the place in one's own channel, `hello`, and the answer to `auth` when that brought the token."""
        assert self.identity is not None
        peer = self._office.hub.connect(self.connection)
        peer.label = self
        channels_max = self._shared.limits.channels_max
        self._subscriptions = Subscriptions(peer, self._office.access, self.identity.user, channels_max=channels_max)
        try:
            await self._subscriptions.open()
        except Unavailable:
            self.connection.close(TRY_LATER, "overload")
        if self.connection.is_closing:
            return
        self._session.opened()
        self.say(self._hello(self.identity))
        if answer_to is not None:
            self._answer_auth(answer_to)
        self._held_until_s = trio.current_time() + HOLD_S
        self.connection.wake_at(self._held_until_s)

    def _authenticate(self, asked: Authenticate) -> None:
        is_first = self.identity is None
        try:
            identity = self._office.authenticate(asked.token)
            if self.identity is not None and identity.user != self.identity.user:
                raise Forbidden("This socket belongs to another user; open a new one")
        except SecureConnectError as error:
            self.say(refusal(asked.id, error))
            if is_first and isinstance(error, NotAuthenticated):
                self.connection.close(POLICY, close_word(error))
            return
        self.admit(identity)
        if is_first:
            self._opening = asked.id
        else:
            self._answer_auth(asked.id)

    def _answer_auth(self, command_id: CommandId) -> None:
        assert self.identity is not None
        result = {"user_id": self.identity.user, "session_id": self.identity.session, "connection_id": self.id}
        self.say(socket_answer(command_id, Response(200, data=encode(result))))

    def _hello(self, identity: Identity) -> bytes:
        limits = self._shared.limits
        data = {
            "connection_id": self.id,
            "user_id": identity.user,
            "session_id": identity.session,
            "server_time": self._server_time(),
            "heartbeat_s": limits.ping_s,
            "node": self._office.node,
            "limits": {
                "message_bytes_max": limits.message_bytes_max,
                "commands_waiting_max": limits.commands_waiting_max,
                "channels_max": limits.channels_max,
                "idle_s": limits.idle_s,
            },
            "degraded": self._office.degraded(),
        }
        return event("hello", data)

    # -- commands

    def _do(self, effect: Effect | None) -> None:
        if isinstance(effect, Run):
            self._shared.begin(self.connection, partial(self._work, effect.command))
        elif isinstance(effect, RunAside):
            self._shared.begin(self.connection, partial(self._work_aside, effect.command))
        elif isinstance(effect, Say):
            self.say(effect.payload)
        elif isinstance(effect, Pong):
            self._pong(effect.id)
        elif isinstance(effect, Authenticate):
            self._authenticate(effect)

    async def _work(self, command: Command | None) -> None:
        while command is not None:
            self._begun = number = self._begun + 1
            was_placed = False

            def placed() -> None:
                nonlocal was_placed
                was_placed = True
                following = self._session.placed()
                if following is not None:
                    self._shared.begin(self.connection, partial(self._work, following))

            await self._serve(command, partial(self._answer_in_turn, number), placed if command.endpoint.overlaps else None)
            command = self._session.next_in_turn(was_placed=was_placed)
            self._wake_reader()
        self._end_if_told()

    async def _answer_in_turn(self, number: int, payload: bytes) -> None:
        """Answers leave in the order of the commands, however those that overlap end."""
        if number > self._answered + 1 and not self.connection.is_closing:
            self._turns = self._turns or {}
            self._turns[number] = turn = trio.Event()
            await turn.wait()
        await self._answer(payload)
        self._answered = number
        if self._turns and (following := self._turns.pop(number + 1, None)) is not None:
            following.set()

    async def _answer(self, payload: bytes) -> None:
        """Returns when it has left, stands in line, or has nobody to go to."""
        frame = server_frame(TEXT, payload)
        if not self.connection.answer(frame):
            await self.connection.wait_answer(frame)

    async def _work_aside(self, command: Command | None) -> None:
        while command is not None:
            await self._serve(command, self._answer, None)
            command = self._session.next_aside()
            self._wake_reader()
        self._end_if_told()

    async def _serve(
        self, command: Command, answer: Callable[[bytes], Awaitable[None]], placed: Callable[[], None] | None
    ) -> None:
        """One command to its answer. Cancellation: it may have been done, and is not answered."""
        office, identity, subscriptions = self._office, self.identity, self._subscriptions
        assert identity is not None
        assert subscriptions is not None
        try:
            office.check(identity)
        except NotAuthenticated as error:
            await answer(refusal(command.id, error))
            self.connection.close(POLICY, close_word(error))
            return
        if command.endpoint.name != "subscribe":
            subscriptions.release()
        context = SocketContext(
            via="socket",
            peer=self._address,
            request_id=RequestId(office.ids.new()),
            identity=identity,
            subscriptions=subscriptions,
            placed=placed,
        )
        response = await office.dispatcher.call(command.endpoint, command.params, context)
        await answer(socket_answer(command.id, response))
        if context.after_answer is not None and self._goodbye is None and not self.connection.is_closing:
            context.after_answer()
            for channel, beginning in subscriptions.take_late().items():
                self.follow(channel, beginning)

    def say(self, payload: bytes) -> None:
        """Send this JSON as a text frame."""
        self.connection.push(server_frame(TEXT, payload))

    def _pong(self, command_id: CommandId | None) -> None:
        data = {"server_time": self._server_time()}
        self.say(event("pong", data))
        if command_id is not None:
            self.say(socket_answer(command_id, Response(200, data=encode(data))))

    def _server_time(self) -> str:
        return rfc3339(self._office.clock.now_us())

    def _wake_reader(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    # -- from the gateway

    @property
    def is_open(self) -> bool:
        """Whether `hello` was said, and no farewell."""
        return self._session.state == "open"

    @property
    def is_busy(self) -> bool:
        """Whether a command is under way."""
        return self._session.is_busy

    def withdraw(self, channel: str, reason: str) -> None:
        """The user may not listen to `channel` any more: at once, and said. The socket stays."""
        if self._subscriptions is not None and self._subscriptions.withdraw(channel):
            self.say(event("unsubscribed", {"channel": channel, "reason": reason}, channel=channel))

    def follow(self, channel: str, beginning: Beginning) -> None:
        """The user was added to a conversation: `all` includes it from here on."""
        if self._subscriptions is None or not self._subscriptions.follows_all or self._is_ending:
            return
        if self._to_follow is None:
            self._to_follow = {channel: beginning}
            self._shared.begin(self.connection, self._follow)
        elif beginning is not Start.JOINED or channel not in self._to_follow:  # what the client said last is better than news
            self._to_follow[channel] = beginning

    def end_session(self, reason: str) -> None:
        """The login session was ended: say so, show nothing more, and close, at once or when what is under way is answered.

        What is under way may be the very `auth.logout` that ended it, and every command gets its answer.
        """
        assert self.identity is not None
        self.say(event("session.ended", {"reason": reason}, channel=user_channel(self.identity.user)))
        self._goodbye = ENDED_WORDS.get(reason, "token_revoked")
        self._session.close()
        self.connection.leave_channels()
        self.connection.end_at(trio.current_time() + self._shared.limits.close_s, self._goodbye)
        self._end_if_told()

    @property
    def _is_ending(self) -> bool:
        """Whether nothing more may be shown: the login session has ended, or the socket closes."""
        return self._goodbye is not None or self.connection.is_closing

    def _end_if_told(self) -> None:
        if self._goodbye is not None and not self._session.is_busy:
            self.connection.close(POLICY, self._goodbye)

    async def _follow(self) -> None:
        pause_s, pause_max_s = FOLLOW_RETRY_S
        while self._to_follow and not self._is_ending and self._subscriptions is not None:
            channel, beginning = next(iter(self._to_follow.items()))
            try:
                said = await self._subscriptions.follow(channel, beginning)
            except Unavailable:
                if (present := self._to_follow.pop(channel, None)) is not None:
                    self._to_follow[channel] = present  # the others first
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, pause_max_s)
                continue
            except SecureConnectError:
                said = None  # removed again meanwhile
            if said is not None and self._to_follow[channel] != beginning:
                self._subscriptions.give_up(channel)  # the client has said another position meanwhile
                continue
            self._to_follow.pop(channel, None)
            if said is not None and not self._is_ending:
                self.say(said)
                self._subscriptions.start({channel: None})
        self._to_follow = None


def close_word(error: NotAuthenticated) -> str:
    """The reason that goes with 1008."""
    return _CLOSE_WORDS.get(error.word, "token_invalid")
