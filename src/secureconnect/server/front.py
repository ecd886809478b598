"""The port: every connection begins here, as HTTP/1.1, and each request on it goes one of three ways.

A row of the table goes straight to dispatch; a socket path leaves HTTP for good, with the bytes already read; everything else is
a page and goes to the ASGI application. One task per connection, requests in order, answers in the same order: what a peer
pipelines waits as bytes. Whatever the bytes are, the outcome is an answer that names the problem, or a closed connection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import trio

from secureconnect.errors import AtCapacity, SecureConnectError, Unavailable
from secureconnect.ports import Clock, Transport
from secureconnect.server.asgi_bridge import Application, AsgiBridge
from secureconnect.server.exchange import Call, Exchange
from secureconnect.server.front_answer import CONTINUE, Writer
from secureconnect.server.front_body import body_of
from secureconnect.server.front_connection import Connection, FrontLimits
from secureconnect.server.front_parser import HeadTooLarge, Malformed
from secureconnect.server.message import Head, Reply, SlowRequest
from secureconnect.server.query import read_query
from secureconnect.server.websocket_handshake import HandshakeRequest

LINGERING_MAX = 1_000
"""Refused connections that are told so at the same time; above it they are closed without a word."""
CAPACITY_RETRY_S = 1.0
"""What a connection too many is told; connections of requests come and go quickly."""
LAST_REQUEST_S = 5.0
"""For who connects while the server drains: to ask, and to read the answer."""
API_PREFIX = b"/v1/"
"""Below it there are operations only: what no row has is answered 404 here, not by a page."""

_log = structlog.get_logger("secureconnect.front")


class Gateway(Protocol):
    """Where connections go that become sockets."""

    def is_socket_path(self, path: str) -> bool: ...

    async def serve(self, request: HandshakeRequest, transport: Transport, rest: bytes) -> bool:
        """The whole further life of `transport`, its end included. `rest`: bytes read behind the request's head."""
        ...


@dataclass(slots=True)
class FrontCounters:
    """Totals since the start; `malformed` by reason, which is one of the few words in the code, never what a peer sent."""

    accepted: int = 0
    refused: int = 0
    requests: int = 0
    upgrades: int = 0
    late: int = 0
    malformed: dict[str, int] = field(default_factory=dict)


class Front:
    """Serves connections. One per server."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        gateway: Gateway,
        web: Application | None,
        clock: Clock,
        limits: FrontLimits = FrontLimits(),  # noqa: B008  # frozen
        end_waits: Callable[[], None] = lambda: None,
    ) -> None:
        """`web`: the ASGI application for everything that is no operation and no socket. `end_waits`: called when a drain begins;
        operations that wait for something to happen answer at once, now and from then on."""
        self.counters = FrontCounters()
        self._exchange = exchange
        self._gateway = gateway
        self._limits = limits
        self._writer = Writer(clock)
        self._web = web and AsgiBridge(web, writer=self._writer, limits=limits, refuse=exchange.refuse_begun)
        self._connections: dict[Connection, None] = {}
        self._lingering = 0
        self._is_full = False
        self._draining = False
        self._end_waits = end_waits
        self._emptied = trio.Event()

    @property
    def connections(self) -> int:
        """Open HTTP connections; those that became sockets are the gateway's."""
        return len(self._connections)

    @property
    def unexpected(self) -> int:
        """Exceptions of the web application and around dispatch, since the start."""
        return self._exchange.unexpected + (self._web.unexpected if self._web else 0)

    async def serve_connection(self, transport: Transport) -> None:
        """The whole life of one connection. Never raises but on cancellation."""
        self.counters.accepted += 1
        if self._draining:
            await self._serve_last(transport)
            return
        if len(self._connections) >= self._limits.connections_max:
            self._note_full()
            await self._turn_away(transport, AtCapacity(retry_after_s=CAPACITY_RETRY_S))
            return
        self._is_full = False
        upgrade = await self._http(transport)
        if upgrade is not None:
            self.counters.upgrades += 1
            serving = self._gateway.serve(*upgrade)
            del upgrade  # or the head would stay as long as the socket: 1.5 KiB each
            await serving

    async def drain(self) -> None:
        """Close idle connections, answer the requests under way with `Connection: close`; return when all are answered.

        A poll has nothing to wait for here any longer: it is answered with what there is, and goes on at another server.
        """
        self._draining = True
        self._end_waits()
        for connection in list(self._connections):
            if connection.phase == "idle":
                connection.transport.abort()
        while self._connections:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def _http(self, transport: Transport) -> tuple[HandshakeRequest, Transport, bytes] | None:
        """Requests and answers until the connection ends, or becomes a socket; nothing of HTTP is kept for a socket."""
        connection = Connection(transport, self._limits)
        self._connections[connection] = None
        upgrade = None
        try:
            with connection.scope:
                upgrade = await self._converse(connection)
            if connection.scope.cancelled_caught:
                await self._late(connection)
        except OSError:
            pass  # the peer is gone, or does not read
        finally:
            del self._connections[connection]
            if not self._connections:
                self._emptied.set()
            if upgrade is None:
                transport.abort()
        return upgrade

    async def _converse(self, connection: Connection) -> tuple[HandshakeRequest, Transport, bytes] | None:
        """Raises: OSError when the connection is gone."""
        head = None
        try:
            while (head := await connection.next_head()) is not None:
                self.counters.requests += 1
                if self._gateway.is_socket_path(head.path.decode("ascii")):
                    return self._hand_over(connection, head)
                if not await self._serve(connection, head) or self._draining:
                    break  # a drain that began during the answer found nothing idle to close
                head = None  # what goes wrong with the next one is not this one's
        except SecureConnectError as problem:
            await self._refuse(connection, problem, head)
        else:
            await connection.goodbye()
        return None

    def _hand_over(self, connection: Connection, head: Head) -> tuple[HandshakeRequest, Transport, bytes]:
        """Raises: Malformed, BadRequest."""
        if head.length != 0:
            raise Malformed("upgrade_with_body", "A request that becomes a socket has no body")
        transport = connection.transport
        request = HandshakeRequest(
            method=head.method,
            path=head.path.decode("ascii"),
            query={name: value for name, value in read_query(head.query).items() if isinstance(value, str)},
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers.items()},
            peer=self._exchange.client(head.headers, transport.peer),
            http_version=head.version,
        )
        return request, transport, connection.inbox.take(len(connection.inbox))

    async def _serve(self, connection: Connection, head: Head) -> bool:
        """Answer one request. Returns whether the connection goes on. Raises: SecureConnectError, OSError."""
        peer = connection.transport.peer
        keep = head.keep_alive and not self._draining
        begun = self._exchange.begin(head, peer)
        if isinstance(begun, Call):
            reply, is_read = await self._run(connection, head, begun)
            if reply is None:
                return False
        elif begun is None and self._web is not None and not head.path.startswith(API_PREFIX):
            return await self._web.serve(connection, head, peer=self._exchange.client(head.headers, peer), keep=keep)
        else:
            reply = begun or self._exchange.nobody(head.headers)
            is_read = await self._skip_body(connection, head)
        keep = keep and is_read and not self._draining
        await connection.write(self._writer.answer(reply, version=head.version, keep=keep, head_only=head.method == "HEAD"))
        return keep

    async def _run(self, connection: Connection, head: Head, call: Call) -> tuple[Reply | None, bool]:
        """The operation's answer (None: the peer left while it waited for one) and whether the body was read to its end."""
        content = b""
        if head.length != 0:
            try:
                content = await self._content(connection, head)
            except SecureConnectError as problem:
                self._count(problem)
                return self._exchange.refuse(problem, call.headers), False
        if call.endpoint.deadline == "request":
            connection.busy(self._limits.request_deadline_s + 1)
            return await self._exchange.run(call, content), True
        connection.busy(math.inf)
        return await connection.while_there(lambda: self._exchange.run(call, content)), True

    async def _content(self, connection: Connection, head: Head) -> bytes:
        """Raises: Malformed, TooLarge; OSError."""
        body = body_of(head, self._limits.body_bytes_max)
        if head.expects_continue and not len(connection.inbox):
            await connection.write(CONTINUE)
        return await connection.whole(body)

    async def _skip_body(self, connection: Connection, head: Head) -> bool:
        """Drop a body that is here already; for another one nobody waits. Returns whether that was all of it."""
        if head.length == 0:
            return True
        try:
            body = body_of(head, self._limits.body_bytes_max)
            body.pull(connection.inbox)
            while body.is_paused:
                await trio.lowlevel.checkpoint()
                body.pull(connection.inbox)
        except SecureConnectError:
            return False
        return body.done

    def _count(self, problem: SecureConnectError) -> None:
        reason = problem.reason if isinstance(problem, Malformed) else "head_too_large"
        if isinstance(problem, Malformed | HeadTooLarge):
            self.counters.malformed[reason] = self.counters.malformed.get(reason, 0) + 1

    async def _refuse(self, connection: Connection, problem: SecureConnectError, head: Head | None = None) -> None:
        """The last answer on a connection whose bytes cannot be trusted further. `head`: the request's, where it was good."""
        self._count(problem)
        connection.busy(math.inf)
        reply = self._exchange.refuse(problem) if head is None else self._exchange.refuse_begun(problem, head.headers)
        is_head = head is not None and head.method == "HEAD"
        await connection.write(self._writer.answer(reply, version="1.1", keep=False, head_only=is_head))
        await connection.goodbye()

    async def _late(self, connection: Connection) -> None:
        """A deadline passed: an idle connection ends silently, half a request is told why, half an answer is torn."""
        if connection.is_answering or connection.phase == "answer":
            return
        if connection.phase == "idle":
            await connection.goodbye()
            return
        self.counters.late += 1
        stage = connection.phase
        await self._refuse(connection, SlowRequest(f"The request's {stage} did not arrive in time", details={"stage": stage}))

    async def _serve_last(self, transport: Transport) -> None:
        """Who comes while we drain has one request: health is told, all else is another server's. The drain waits for none."""
        connection = Connection(transport, self._limits)
        if self._lingering >= LINGERING_MAX:
            transport.abort()
            return
        self._lingering += 1
        try:
            with trio.move_on_after(LAST_REQUEST_S), connection.scope:
                head = await connection.next_head()
                if head is None:
                    return
                begun = self._exchange.begin(head, transport.peer)
                if isinstance(begun, Call) and begun.endpoint.bare:
                    reply = await self._exchange.run(begun, b"")
                else:
                    restarting = Unavailable("This server is about to restart; come back soon", retry_after_s=CAPACITY_RETRY_S)
                    reply = self._exchange.refuse_begun(restarting, head.headers)
                is_head = head.method == "HEAD"
                await connection.write(self._writer.answer(reply, version=head.version, keep=False, head_only=is_head))
                await connection.goodbye()
        except SecureConnectError as problem:
            with suppress(OSError):
                await self._refuse(connection, problem)
        except OSError:
            pass
        finally:
            self._lingering -= 1
            transport.abort()

    def _note_full(self) -> None:
        self.counters.refused += 1
        if not self._is_full:  # once per time of being full: a storm must not flood the log
            self._is_full = True
            bound = self._limits.connections_max
            _log.warning("at_capacity", setting="SECURECONNECT_HTTP_CONNECTIONS_MAX", connections_max=bound, kind="http")

    async def _turn_away(self, transport: Transport, problem: SecureConnectError) -> None:
        """Tell a connection that it will not be served, and let it read that; too many of them are closed without a word."""
        connection = Connection(transport, self._limits)
        try:
            if self._lingering < LINGERING_MAX:
                self._lingering += 1
                try:
                    reply = self._exchange.refuse(problem)
                    await connection.write(self._writer.answer(reply, version="1.1", keep=False))
                    await connection.goodbye()
                finally:
                    self._lingering -= 1
        except OSError:
            pass
        finally:
            transport.abort()
