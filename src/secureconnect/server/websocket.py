"""The gateway: every native socket of this node, from the upgrade to its end (interface.md §5).

One task per socket, the front's: it reads. Everything a socket needs beside that for a while (a command, the emptying of an
outbox) runs in one nursery of the gateway and is contained: an unexpected exception ends that socket with 1011, is logged and
counted, and touches nobody else. Clocks of all sockets are watched by one task (websocket_timers).

What changes from outside reaches sockets as signals of the hub, synchronously: `session.ended` closes those of a login session,
`membership` takes a channel away, or adds one for who listens to all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import Context

import structlog
import trio

from secureconnect.errors import AtCapacity, SecureConnectError, Unavailable
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import Identity
from secureconnect.hub import Hub
from secureconnect.ids import UserId, conversation_channel
from secureconnect.ports import Clock, Ids, Transport
from secureconnect.server.admission import MembershipChanged, SessionEnded, Start, read_signal
from secureconnect.server.attendance import Attendance
from secureconnect.server.connection import Connection, Shared
from secureconnect.server.degraded import Board, notice, shown
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Endpoint
from secureconnect.server.origins import Origins
from secureconnect.server.rate_limits import RateLimiter
from secureconnect.server.session import event
from secureconnect.server.websocket_closings import Closings
from secureconnect.server.websocket_frames import INTERNAL, RESTART, TEXT, server_frame
from secureconnect.server.websocket_handshake import (
    HandshakeRequest as HandshakeRequest,
)
from secureconnect.server.websocket_handshake import acceptance, bearer, check, refusal, request_id_of
from secureconnect.server.websocket_limits import Counters
from secureconnect.server.websocket_limits import GatewayLimits as GatewayLimits
from secureconnect.server.websocket_native import NativeSocket, Office
from secureconnect.server.websocket_subscriptions import socket_methods
from secureconnect.server.websocket_timers import Timers

SOCKET_PATH = "/v1/ws"
CAPACITY_RETRY_S = 5.0
"""What a refused client is told; it adds its own jitter."""
STRANGER_BYTES_MAX = 16_384
"""Of one message before authentication: a token fits many times, and a crowd of strangers cannot make us hold much."""
DRAIN_HEAD_S = 1.0
"""Between the notice of a drain and the first close: time to end what is under way ..."""
DRAIN_TAIL_S = 2.5
"""... and what is kept of the grace for the last close handshakes."""
DRAIN_STEP_S = 0.02
"""Pace of a drain that has time: 50 sockets a second come back elsewhere; 1,000 fill 20 s."""
DRAIN_TICK_S = 0.1
"""Sockets whose moment has come are looked for so often."""

_log = structlog.get_logger("secureconnect.websocket")


class Gateway:
    """Serves sockets. One per node; `run` must be running while `serve` is called."""

    def __init__(
        self,
        *,
        hub: Hub,
        dispatcher: Dispatcher,
        endpoints: Mapping[str, Endpoint],
        authenticate: Callable[[str], Identity],
        check: Callable[[Identity], None],
        access: Access,
        clock: Clock,
        ids: Ids,
        node: str,
        limits: GatewayLimits = GatewayLimits(),  # noqa: B008  # frozen
        origins: Origins | None = None,
        limiter: RateLimiter | None = None,
        attendance: Attendance | None = None,
        board: Callable[[], Board] = dict,
    ) -> None:
        """`authenticate` and `check` (of an identity known already) raise NotAuthenticated.

        `attendance` is told of each user's first and last socket here. `board`: what is degraded, for `hello`; who changes it
        calls `board_changed`.
        """
        own = {row.name: row for row in socket_methods(hub, access, channels_max=limits.channels_max)}
        callable_here = {name: row for name, row in endpoints.items() if row.socket and not row.bare}
        self.counters = Counters()
        self._limits = limits
        self._origins = origins or Origins()
        self._limiter = limiter
        self._attendance = attendance
        self._clock = clock
        self._ids = ids
        self._timers = Timers()
        self._closings = Closings()
        self._shared = Shared(limits, self._timers, self.counters, self._begin)
        self._office = Office(
            hub,
            dispatcher,
            {**callable_here, **own},
            authenticate,
            check,
            access,
            clock,
            ids,
            node,
            lambda: shown(board()),
            self._enter,
        )
        self._board = board
        self._board_changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._sockets: dict[NativeSocket, None] = {}
        self._users: dict[UserId, dict[NativeSocket, None]] = {}  # those of a login session are found among its user's
        self._is_draining = False
        self._is_full = False
        self._left = trio.Event()
        hub.on_signal("session.ended", self._session_ended)
        hub.on_signal("membership", self._membership_changed)

    @property
    def sockets(self) -> int:
        """Open now, those that are closing or not yet authenticated among them."""
        return len(self._sockets)

    def is_socket_path(self, path: str) -> bool:
        return path == SOCKET_PATH

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own what sockets run beside their readers. Cancellation: every socket is aborted."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._timers.run)
                nursery.start_soon(self._tell)
                task_status.started()
        finally:
            self._nursery = None
            for socket in list(self._sockets):
                socket.connection.abort("stopped")

    # -- one socket

    async def serve(self, request: HandshakeRequest, transport: Transport, rest: bytes) -> bool:
        """The whole further life of `transport`, its end included. False: refused by an HTTP answer.

        `rest`: bytes that were read behind the request's head. Never raises but on cancellation, which aborts the socket.
        """
        request_id = request_id_of(request, self._ids.new())
        try:
            identity = await self._admit(request)
        except SecureConnectError as error:
            await self._refuse(transport, refusal(error, request_id, self._clock.now_us()))
            return False
        except BaseException:
            transport.abort()
            raise
        socket = NativeSocket(transport, self._office, self._shared, address=request.peer)
        socket.connection.push(acceptance(request, request_id))
        socket.connection.unread(rest)
        self._sockets[socket] = None
        self.counters.opened += 1
        del request, request_id, transport, rest  # an idle socket keeps nothing of its handshake
        try:
            if identity is None:
                socket.connection.limit_messages(min(STRANGER_BYTES_MAX, self._limits.message_bytes_max))
                socket.connection.end_at(trio.current_time() + self._limits.handshake_deadline_s, "auth_timeout")
            else:
                socket.admit(identity)
                await socket.open(None)
            await socket.connection.serve()
        except Exception:  # noqa: BLE001  # the door of one socket: a bug ends this one and nobody else
            await self._failed(socket.connection)
        finally:
            self._leave(socket)
        return True

    async def _admit(self, request: HandshakeRequest) -> Identity | None:
        """Who is it? None: the first frame must tell. Raises: SecureConnectError."""
        check(request, self._origins)
        self._check_room()
        token = bearer(request)
        identity = None if token is None else self._office.authenticate(token)
        if self._limiter is not None:
            await self._limiter.count("connect", identity, request.peer)
            self._check_room()  # both may have changed while another machine was asked
            if identity is not None:
                self._office.check(identity)
        return identity

    def _check_room(self) -> None:
        """Raises: Unavailable."""
        if self._nursery is None or self._is_draining:
            raise Unavailable("This server is about to restart; come back soon", retry_after_s=CAPACITY_RETRY_S)
        if len(self._sockets) >= self._limits.sockets_max:
            self._refused_for_room()
        self._is_full = False

    def _refused_for_room(self) -> None:
        self.counters.refused += 1
        if not self._is_full:  # once per time of being full: a storm must not flood the log
            self._is_full = True
            _log.warning("at_capacity", setting="SECURECONNECT_SOCKETS_MAX", sockets_max=self._limits.sockets_max, kind="native")
        raise AtCapacity(retry_after_s=CAPACITY_RETRY_S)

    async def _failed(self, connection: Connection) -> None:
        self._unexpected()
        connection.close(INTERNAL, "internal")
        with suppress(OSError):
            await connection.read_to_end()

    async def _refuse(self, transport: Transport, answer: bytes) -> None:
        """Write an HTTP answer and let the peer read it: closing over what it still sends would destroy it on its way."""
        rest = memoryview(answer)
        try:
            with trio.move_on_after(self._limits.write_deadline_s):
                while rest:
                    try:
                        rest = rest[transport.send_now(rest) :]
                    except BlockingIOError:
                        await transport.wait_writable()
            transport.send_eof()
            with trio.move_on_after(self._limits.close_s):
                while await transport.receive(4096):
                    pass
        except OSError:
            pass
        finally:
            transport.abort()

    def _enter(self, socket: NativeSocket, identity: Identity) -> None:
        of_user = self._users.setdefault(identity.user, {})
        if not of_user and self._attendance is not None:
            self._attendance.arrived(identity.user)
        of_user[socket] = None

    def _leave(self, socket: NativeSocket) -> None:
        socket.connection.release()
        del self._sockets[socket]
        if socket.identity is not None:
            of_user = self._users[socket.identity.user]
            of_user.pop(socket, None)
            if not of_user:
                del self._users[socket.identity.user]
                if self._attendance is not None:
                    self._attendance.left(socket.identity.user)
        self._left.set()
        self._closings.note(socket.connection.ended_by, connection_id=socket.id)

    # -- work beside the readers

    def _begin(self, connection: Connection, work: Callable[[], Awaitable[None]]) -> None:
        """Start `work` for a connection, without the context of whoever asked: it may be another connection's, or the hub's."""
        if self._nursery is None:
            connection.abort("stopped")
        else:
            Context().run(self._nursery.start_soon, self._contained, connection, work)

    async def _contained(self, connection: Connection, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:  # noqa: BLE001  # the door of one socket's work: a bug ends this one and nobody else
            self._unexpected()
            connection.close(INTERNAL, "internal")

    def _unexpected(self) -> None:
        self.counters.unexpected += 1
        _log.exception("unexpected")

    # -- signals

    def _session_ended(self, data: bytes) -> None:
        ended = read_signal(data, SessionEnded)
        if ended is None:
            return
        for socket in list(self._users.get(ended.user_id, ())):
            if socket.identity is not None and socket.identity.session == ended.session_id:
                socket.end_session(ended.reason)

    def _membership_changed(self, data: bytes) -> None:
        changed = read_signal(data, MembershipChanged)
        if changed is None:
            return
        channel = conversation_channel(changed.conversation_id)
        for socket in list(self._users.get(changed.user_id, ())):
            if changed.change == "removed":
                socket.withdraw(channel, changed.reason)
            elif changed.change == "added":
                socket.follow(channel, Start.JOINED)

    # -- what is degraded

    def board_changed(self, board: Board) -> None:
        """Every socket is told soon; of several changes before that, the last."""
        self._board_changed.set()

    async def _tell(self) -> None:
        """One task tells them all. Who opens meanwhile has a `hello` that is newer than what others are still to be told."""
        while True:
            await self._board_changed.wait()
            self._board_changed = trio.Event()
            frame = server_frame(TEXT, notice(self._board()))
            for count, socket in enumerate(list(self._sockets)):
                if socket.is_open:
                    socket.connection.push(frame)
                if count % 256 == 255:
                    await trio.lowlevel.checkpoint()
                    frame = server_frame(TEXT, notice(self._board()))  # nobody is told what was true before its `hello`

    # -- drain

    async def drain(self, grace_s: float) -> None:
        """Send everybody away, each at its own moment: told when to come back, served until then, closed with 1012.

        Returns when all have gone, at the latest after `grace_s`; who is left then is aborted, a peer that does not read too.
        New sockets are refused from here on. Cancellation: who is left stays.
        """
        self._is_draining = True
        with trio.move_on_after(grace_s):
            await self._send_away(trio.current_time(), grace_s)
            while self._sockets:
                self._left = trio.Event()
                await self._left.wait()
        for socket in list(self._sockets):
            socket.connection.abort("stopped")

    async def _send_away(self, now_s: float, grace_s: float) -> None:
        head_s = min(DRAIN_HEAD_S, grace_s / 4)
        last_s = max(head_s, grace_s - DRAIN_TAIL_S)
        step_s = min(DRAIN_STEP_S, (last_s - head_s) / max(1, len(self._sockets)))
        leaving: dict[NativeSocket, float] = {}
        for count, socket in enumerate(list(self._sockets)):
            leaving[socket] = now_s + head_s + count * step_s
            socket.say(event("drain", {"reconnect_in_ms": round((leaving[socket] - now_s) * 1000)}))
            if count % 256 == 255:
                await trio.lowlevel.checkpoint()
        while leaving and self._sockets:
            await trio.sleep(DRAIN_TICK_S)
            moment_s = trio.current_time()
            for socket in [s for s, at_s in leaving.items() if at_s <= moment_s]:
                if not socket.is_busy or moment_s >= now_s + last_s:  # what is under way may end, while there is time
                    socket.connection.close(RESTART, "drain")
                    del leaving[socket]
