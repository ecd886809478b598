"""One connection to the server, from its greeting to its loss; many callers share it.

Three tasks: the writer sends what has gathered in the line, in one piece; the reader gives each reply to whom it belongs and each
push to the owner; the watch looks whether the other side is alive. Whatever ends one of them ends the connection, and everybody
who waits learns so at once. A caller sets its own deadline and may leave at any moment: line.py says what becomes of its answer.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import hiredis
from anyio.abc import ByteStream

from secureconnect.errors import BackendDown

from .address import Address
from .line import Line, OutOfStep, Request
from .pulse import TICKS, Pulse
from .replies import NAME, UNFIT, CommandRefused, ConnectionLost, Part, Reply, refusal, word

RECEIVE_BYTES = 65_536
CLOSE_S = 1.0
"""Closing is a system call; the bound is for an event loop that has other things to do."""
REDIS_VERSION = "Redis 6 or newer is needed, or Valkey"
CONFIRMATIONS = frozenset({b"subscribe", b"unsubscribe"})
ENDED = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError)
"""What a stream raises when the other side is gone. TLS: refused us after the handshake (it wants a certificate of ours), or
speaks nonsense."""

Push = Callable[[list[Reply]], None]
"""Called by the reader, in order, with what the server says unasked (kind first). It must neither block nor raise."""


def _ignore(*_: object) -> None:
    """Nobody listens."""


def packed(*parts: Part) -> bytes:
    """A command as bytes."""
    data: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # the stub says one part; it takes any number
    return data


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one connection."""

    connect_s: float = 1.0
    """To be connected and greeted (failure-policy.md §1: one Redis command)."""
    answer_s: float = 1.0
    """The oldest request may wait so long for its answer, and a quarter more. Longer: the connection is lost."""
    requests_max: int = 10_000
    """Requests without an answer, those included whose callers have left. Full: refused at once."""
    requests_bytes_max: int = 64 << 20
    """Bytes of them. Full: as above."""
    reply_bytes_max: int = 64 << 20
    """Of one reply or push; more than this on the way means that it never ends."""


class Connection:
    """Made by `connect`, of use until `lost` is set. `why` says then why."""

    def __init__(
        self, stream: ByteStream, *, limits: Limits, on_push: Push = _ignore, on_lost: Callable[[], None] = _ignore
    ) -> None:
        self.lost = anyio.Event()
        self.why = ""
        self.line = Line(count_max=limits.requests_max, bytes_max=limits.requests_bytes_max)
        self._stream, self._limits = stream, limits
        self._on_push, self._on_lost = on_push, on_lost
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)  # a value of our own: `False` is a reply in RESP3
        self._heard = 0
        self._writes: anyio.Event | None = None
        self._tasks: anyio.CancelScope | None = None

    # -- for everybody

    async def command(self, *parts: Part) -> Reply:
        """Send one command and wait for its answer.

        Raises: ConnectionLost; Overloaded, with nothing sent; StorageFull, BackendDown, ScriptUnknown, CommandRefused as the
        server says. Cancellation: what was not sent is not done; what was, may be, and its answer is dropped.
        """
        return await self._ask(Request(packed(*parts)))

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Return when every one of them is confirmed. Raises and Cancellation: as `command`."""
        await self._ask(Request(packed("SUBSCRIBE", *topics), confirmations=len(topics)))

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Return when every one of them has been given up, known or not."""
        await self._ask(Request(packed("UNSUBSCRIBE", *topics), confirmations=len(topics)))

    def cut(self, why: str) -> None:
        """End it now. Idempotent: the first reason stays."""
        self.why = self.why or why
        if self._tasks is not None:
            self._tasks.cancel()

    # -- tasks

    async def run(self) -> None:
        """Until it is lost."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks.cancel_scope
                for task in (self._read, self._write, self._watch):
                    tasks.start_soon(task)
                if self.why:
                    self.cut(self.why)
        finally:
            self.why = self.why or "it was closed"
            self.line.lose()
            self.lost.set()
            self._on_lost()

    async def _read(self) -> None:
        receive, feed, gets, line = self._stream.receive, self._reader.feed, self._reader.gets, self.line
        unfinished = 0
        try:
            while True:
                data = await receive(RECEIVE_BYTES)
                self._heard += 1
                unfinished += len(data)
                feed(data)
                while (reply := gets()) is not _NOTHING:
                    unfinished = 0
                    if type(reply) is hiredis.PushNotification:
                        self._pushed(reply)
                    else:
                        if type(reply) is hiredis.ReplyError and word(reply) in UNFIT:
                            self.cut(str(reply))
                        line.answer(reply)
                if unfinished > self._limits.reply_bytes_max:
                    return self.cut(f"a reply of over {self._limits.reply_bytes_max} bytes")
        except ENDED as error:
            self._ended(error)
        except hiredis.ProtocolError as error:
            self.cut(f"not the Redis protocol: {error}")
        except OutOfStep as error:
            self.cut(f"out of step: {error}")

    def _pushed(self, push: list[Reply]) -> None:
        if push and push[0] in CONFIRMATIONS:
            self.line.confirm()
        else:
            self._on_push(push)

    async def _write(self) -> None:
        try:
            while True:
                data = self.line.take()
                if data:
                    await self._stream.send(data)
                    continue
                self._writes = anyio.Event()
                await self._writes.wait()
        except ENDED as error:
            self._ended(error)

    async def _watch(self) -> None:
        pulse = Pulse()
        while True:
            await anyio.sleep(self._limits.answer_s / TICKS)
            verdict = pulse.tick(self.line.oldest, heard=self._heard)
            if verdict == "dead":
                return self.cut(f"no answer within {self._limits.answer_s:g} s")
            if verdict == "quiet" and not len(self.line):
                self._send(Request(packed("PING")))

    # -- inside

    def _ended(self, error: Exception) -> None:
        why = error.reason if isinstance(error, ssl.SSLError) else type(error).__name__
        self.cut(f"the server ended the connection ({why})")

    def _send(self, request: Request) -> None:
        self.line.enter(request)
        if self._writes is not None:
            self._writes.set()
            self._writes = None

    async def _ask(self, request: Request) -> Reply:
        if self.lost.is_set():
            raise ConnectionLost(self.why)
        self._send(request)
        try:
            await request.answered.wait()
        except BaseException:
            request.is_abandoned = True
            raise
        if request.is_lost:
            raise ConnectionLost(self.why, was_sent=request.is_sent)
        if isinstance(request.reply, hiredis.ReplyError):
            raise refusal(request.reply)
        return request.reply


_NOTHING = object()


@asynccontextmanager
async def connect(
    address: Address, name: str, *, limits: Limits = Limits(), on_push: Push = _ignore, on_lost: Callable[[], None] = _ignore
) -> AsyncIterator[Connection]:
    """A connection for the length of the block; it may be lost before that, which `on_lost()` hears, and must not raise.

    `name`: what CLIENT LIST shows.

    Raises: BackendDown when there is none within `connect_s`, or the server does not let us in; what the block raises, unchanged.
    """
    give_up_at = anyio.current_time() + limits.connect_s
    stream = await _dial(address, give_up_at)
    try:
        connection = Connection(stream, limits=limits, on_push=on_push, on_lost=on_lost)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)
            try:
                await _greet(connection, address, name, give_up_at)
                yield connection
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # the task group's wrapping around what one of us raised
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await anyio.aclose_forcefully(stream)


async def _dial(address: Address, give_up_at: float) -> ByteStream:
    with anyio.CancelScope(deadline=give_up_at):
        try:
            if address.tls is None:
                return await anyio.connect_tcp(address.host, address.port)
            return await anyio.connect_tcp(
                address.host, address.port, ssl_context=address.tls, tls_hostname=address.host,
                tls_standard_compatible=False,  # every reply has its length: an end without a goodbye cuts nothing off unseen
            )  # fmt: skip
        except ssl.SSLCertVerificationError as error:
            raise ConnectionLost(f"{address}: its certificate is not to be trusted: {error.verify_message}") from error
        except (OSError, *ENDED) as error:
            raise ConnectionLost(f"{address}: {str(error) or type(error).__name__}") from error
    raise ConnectionLost(f"{address}: no connection in time")


async def _greet(connection: Connection, address: Address, name: str, give_up_at: float) -> None:
    """Speak RESP3, log in, choose the database."""
    login = () if address.password is None else ("AUTH", address.user or "default", address.password)
    with anyio.CancelScope(deadline=give_up_at):
        try:
            await connection.command("HELLO", 3, *login, "SETNAME", name)
            if address.database:
                await connection.command("SELECT", address.database)
        except CommandRefused as error:  # an older server, or one without this database
            raise BackendDown(NAME, f"{error} ({REDIS_VERSION})") from error
        return
    raise ConnectionLost(f"{address}: no greeting in time")
