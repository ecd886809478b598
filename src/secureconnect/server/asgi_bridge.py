"""An ASGI application under the front: the same connection, the same clocks, one request at a time (ASGI 3, HTTP 2.3).

The application is foreign code with our deadlines around it: `request_deadline_s` to its first word and between any two (so a
stream that breathes goes on), `write_deadline_s` without progress for each write, and the peer's leaving is told through
`receive`. Whatever it raises ends its own request only, and an answer that is none (a header that would end its line, a status
that ends no request, a body where none may be) becomes a 500 before a byte of it is written. Lifespan is not run here: ours
needs none.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

import structlog
import trio

from secureconnect.errors import RequestTimeout, SecureConnectError
from secureconnect.server.front_answer import CONTINUE, Writer, header_lines, persistence, status_line
from secureconnect.server.front_body import Body, body_of
from secureconnect.server.front_connection import Connection, FrontLimits
from secureconnect.server.front_parser import PLAIN, TOKEN
from secureconnect.server.message import Head, Headers, Reply
from secureconnect.server.router import decode

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
"""`await app(scope, receive, send)`. Frameworks type the three by their own names, hence Any at this door."""

_OURS = {
    b"content-length": None,
    b"connection": None,
    b"transfer-encoding": None,
    b"keep-alive": None,
    b"date": None,
    b"server": None,
}
"""Headers that say how bytes travel: the connection's business, not an application's."""
_BODILESS = {204: None, 205: None, 304: None}
"""Statuses whose answers end with their head (RFC 9110 §15.3.5, §15.3.6, §15.4.5); what follows would be read as the next one."""

_log = structlog.get_logger("secureconnect.asgi")


class BadAnswer(Exception):
    """What the application sent is no answer. It is told by this exception, and whatever it says further is dropped."""


class AsgiBridge:
    """Serves requests with `app`."""

    def __init__(
        self,
        app: Application,
        *,
        writer: Writer,
        limits: FrontLimits,
        refuse: Callable[[SecureConnectError, Headers], Reply],
    ) -> None:
        """`refuse` makes the answer, to a request of these headers, that stands in for one the application did not give."""
        self.unexpected = 0
        """Exceptions that came out of the application, and answers of it that were none, since the start."""
        self._app = app
        self._writer = writer
        self._limits = limits
        self._refuse = refuse

    async def serve(self, connection: Connection, head: Head, *, peer: str, keep: bool) -> bool:
        """One request. Returns whether the connection may go on.

        Raises: BadRequest (Malformed among them), TooLarge when the request turns out to be none, and nothing was answered yet;
        OSError when the peer is gone.
        """
        scope = _scope(head, peer)
        talk = _Talk(connection, head, body_of(head, self._limits.body_bytes_max), self._writer, self._limits, keep=keep)
        connection.busy(math.inf)
        with talk.clock:
            await self._contained(scope, talk)
        if talk.is_gone:
            raise ConnectionResetError("the peer left")
        if talk.is_finished:
            return talk.keeps
        if talk.is_started:
            connection.transport.abort()  # the peer must see that the answer is not whole
            return False
        if talk.problem is not None:
            raise talk.problem
        return await self._stand_in(talk, head)

    def _note(self, talk: _Talk, path: str) -> None:
        self.unexpected += 1
        _log.error("bad_answer", path=path, problem=talk.bad)

    async def _contained(self, scope: Message, talk: _Talk) -> None:
        try:
            await self._app(scope, talk.receive, talk.send)
        except Exception:  # noqa: BLE001  # the door of one foreign request: it answers 500 and the server goes on
            if not talk.is_gone and talk.problem is None and not talk.bad:
                self.unexpected += 1
                _log.exception("unexpected", path=scope["path"])
        else:
            if not talk.is_started and not talk.is_gone and talk.problem is None:
                talk.bad = talk.bad or "there was none"
        if talk.bad:
            self._note(talk, scope["path"])

    async def _stand_in(self, talk: _Talk, head: Head) -> bool:
        error: SecureConnectError = SecureConnectError("Internal error")
        if talk.clock.cancelled_caught:
            deadline_s = self._limits.request_deadline_s
            error = RequestTimeout(f"The page did not answer within {deadline_s:g} s", details={"stage": "page"})
        keep = talk.keeps
        await talk.connection.write(
            self._writer.answer(
                self._refuse(error, head.headers), version=head.version, keep=keep, head_only=head.method == "HEAD"
            )
        )
        return keep


class _Talk:
    """One request's `receive` and `send`."""

    def __init__(
        self, connection: Connection, head: Head, body: Body, writer: Writer, limits: FrontLimits, *, keep: bool
    ) -> None:
        self.connection = connection
        self.clock = trio.CancelScope(deadline=trio.current_time() + limits.request_deadline_s)
        self.is_gone = False
        self.is_started = False
        self.is_finished = False
        self.problem: SecureConnectError | None = None
        """What is wrong with the request's body; the application is told that the peer left."""
        self.bad = ""
        """What is wrong with the application's answer."""
        self._head = head
        self._body = body
        self._body_told = False
        self._expects = head.expects_continue and not body.done
        self._body_ends_s = trio.current_time() + limits.body_deadline_s
        self._limits = limits
        self._writer = writer
        self._keep = keep
        self._start: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._framing = "none"
        self._left = 0  # of a told length
        self._watching: trio.CancelScope | None = None

    @property
    def keeps(self) -> bool:
        """Whether the connection may go on: the request's body must have been read to its end."""
        return self._keep and self._body.done

    async def receive(self) -> Message:
        if not self._body_told:
            return await self._next_piece()
        if not self.is_finished and not self.is_gone and self.problem is None:
            await self._wait_gone()
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.is_gone:
            raise ConnectionResetError("the peer left")
        if self.bad:
            raise BadAnswer(self.bad)
        try:
            if message["type"] == "http.response.start":
                if self._start is not None:
                    raise BadAnswer("it starts twice")
                self._start = _checked(message)
            elif message["type"] == "http.response.body" and not self.is_finished:
                await self._write(_bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))
        except BadAnswer as problem:
            self.bad = str(problem)
            raise
        self.clock.deadline = trio.current_time() + self._limits.request_deadline_s

    async def _next_piece(self) -> Message:
        try:
            piece = await self._read_piece()
        except SecureConnectError as problem:
            self.problem = problem
        except OSError:
            self.is_gone = True
        else:
            self._body_told = self._body.done
            return {"type": "http.request", "body": piece, "more_body": not self._body.done}
        return {"type": "http.disconnect"}

    async def _read_piece(self) -> bytes:
        connection = self.connection
        piece = b""
        if self._expects:
            piece = self._body.pull(connection.inbox)
            if not piece and not self._body.begun and not self.is_started:
                await connection.write(CONTINUE)
            self._expects = False
        while not piece and not self._body.done:
            piece = await connection.more(self._body, self._body_ends_s)
        connection.busy(math.inf)
        return piece

    async def _wait_gone(self) -> None:
        with trio.CancelScope() as self._watching:
            if await self.connection.watch():
                self.is_gone = not self.is_finished
            else:
                await trio.sleep_forever()  # it sent so much ahead that it must still be there; the answer ends this
        self._watching = None

    async def _write(self, data: bytes, *, more: bool) -> None:
        out = [] if self.is_started else [self._begin(len(data), more=more)]
        out += self._framed(data, more=more)
        self.is_started = self.connection.is_answering = True
        self.clock.deadline = math.inf  # a write has its own clock, which asks for progress; `send` sets this one again
        try:
            await self.connection.write(b"".join(out))
        except OSError:
            self.is_gone = True
            raise
        if not more:
            self.is_finished = True
            self.connection.is_answering = False
            if self._watching is not None:
                self._watching.cancel()

    def _begin(self, size: int, *, more: bool) -> bytes:
        """The head of the answer; chooses how its body is framed."""
        if self._start is None:
            raise BadAnswer("a body comes before its start")
        status, headers = self._start
        if status in _BODILESS and (size or (status == 205 and more)) and self._head.method != "HEAD":
            raise BadAnswer(f"status {status} has no body")
        self._keep = self.keeps
        told = next((value for name, value in headers if name == b"content-length" and value.isdigit()), None)
        if any(name == b"connection" and b"close" in value.lower() for name, value in headers):
            self._keep = False
        framing = b""
        if self._head.method == "HEAD" or status in _BODILESS:
            self._framing = "none"
            told = b"0" if status == 205 else told
        elif told is not None:
            self._framing, self._left = "length", int(told)
            framing = b"Content-Length: %d\r\n" % self._left
        elif not more:
            self._framing, self._left = "length", size
            framing = b"Content-Length: %d\r\n" % size
        elif self._head.version == "1.1":
            self._framing, framing = "chunked", b"Transfer-Encoding: chunked\r\n"
        else:
            self._framing, self._keep = "close", False
        if self._framing == "none" and told is not None and status != 204:
            framing = b"Content-Length: %b\r\n" % told  # what a GET would have got
        shown = [(name, value) for name, value in headers if name not in _OURS]
        return b"".join(
            (
                status_line(status),
                self._writer.standing(),
                header_lines(shown),
                framing,
                persistence(self._head.version, keep=self._keep),
                b"\r\n",
            )
        )

    def _framed(self, data: bytes, *, more: bool) -> Iterable[bytes]:
        if self._framing == "none":
            return ()
        if self._framing == "chunked":
            chunk = (b"%x\r\n" % len(data), data, b"\r\n") if data else ()
            return chunk if more else (*chunk, b"0\r\n\r\n")
        if self._framing == "length":
            data = data[: self._left]
            self._left -= len(data)
            if not more and self._left:
                self._keep = False  # the application promised more than it gave; only the end of the connection can say so
        return (data,)


def _checked(start: Message) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers of an answer, names in lower case. Raises: BadAnswer."""
    status = start.get("status")
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise BadAnswer(f"{status!r} is no status that ends a request")
    headers = []
    for pair in start.get("headers", ()):
        name, value = (_bytes(part) for part in pair)
        if not TOKEN.fullmatch(name):
            raise BadAnswer(f"{name[:100]!r} is no header name")
        if value.translate(None, PLAIN):
            raise BadAnswer(f"the value of {name[:100]!r} has a control character")
        headers.append((name.lower(), value))
    return status, headers


def _bytes(given: object) -> bytes:
    if not isinstance(given, bytes | bytearray | memoryview):
        raise BadAnswer(f"{type(given).__name__} is no byte string")
    return bytes(given)


def _scope(head: Head, peer: str) -> dict[str, Any]:
    host, _, port = peer.rpartition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "method": head.method,
        "scheme": "http",
        "path": decode(head.path, "path"),
        "raw_path": head.path,
        "query_string": head.query,
        "root_path": "",
        "headers": list(head.headers.items()),
        "client": (host.strip("[]"), int(port)) if port.isdigit() else None,
        "server": None,
        "state": {},
        "extensions": {},
    }
