"""The hub's bus over pub/sub: a link to publish by, and a connection of its own for each subscriber.

A subscriber's connection is not made again behind the hub's back. When it ends, for whatever reason, `receive` says so; the hub
takes a fresh one and listens anew, in chunks, and so knows which channels were not heard for a while and tells those whose events
nobody can repair. What the server gave us before it ended is still handed over. When the hub does not keep up, what waits for it
is thrown away and the connection cut: a loss that is told, in place of memory that grows.

Pub/sub does not know databases; the topics carry the number of ours, so that two installations can share one server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice

import anyio
from anyio.lowlevel import checkpoint

from secureconnect.errors import SecureConnectError, Unavailable
from secureconnect.hub import BusAway

from .address import Address
from .connection import Connection, connect
from .link import Link
from .replies import CommandRefused, Reply

CHUNK = 1_000
"""Topics in one command: a millisecond or two of the server's time, in which it serves nobody else."""
YIELD_EVERY = 100
"""Messages handed over between two chances for other tasks."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one subscriber. Full: its connection is cut."""

    messages_max: int = 10_000
    bytes_max: int = 64 << 20


class RedisBus:
    """A `hub.Bus`. `publisher` is a link that somebody runs."""

    def __init__(self, publisher: Link, *, limits: Limits = Limits()) -> None:
        self._publisher, self._limits = publisher, limits
        self._prefix = topic_prefix(publisher.address)

    @property
    def alone(self) -> bool:
        """Never: another node may have subscribed a moment ago, and what it missed of a history nobody would know."""
        return False

    async def publish(self, topic: str, data: bytes) -> None:
        try:
            await self._publisher.command("PUBLISH", self._prefix + topic, data)
        except (Unavailable, CommandRefused) as error:
            raise BusAway(str(error)) from error

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscriber]:
        address, limits = self._publisher.address, self._publisher.limits
        inbox = _Inbox(self._prefix, self._limits)
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(
                    connect(address, "secureconnect-subscribe", limits=limits, on_push=inbox.on_push, on_lost=inbox.wake)
                )
            except SecureConnectError as error:
                raise BusAway(str(error)) from error
            inbox.connection = connection
            yield Subscriber(connection, inbox, self._prefix)


class Subscriber:
    """A `hub.Link`: one connection that only listens."""

    def __init__(self, connection: Connection, inbox: _Inbox, prefix: str) -> None:
        self._connection, self._inbox, self._prefix = connection, inbox, prefix
        self._handed = 0

    async def listen(self, topics: Iterable[str]) -> None:
        await self._in_chunks(self._connection.subscribe, topics)

    async def unlisten(self, topics: Iterable[str]) -> None:
        await self._in_chunks(self._connection.unsubscribe, topics)

    async def receive(self) -> tuple[str, bytes]:
        self._handed += 1
        if self._handed % YIELD_EVERY == 0:
            await checkpoint()
        while (message := self._inbox.take()) is None:
            if self._connection.lost.is_set():
                raise BusAway(self._connection.why)
            await self._inbox.changed()
        return message

    async def _in_chunks(self, command: Callable[[Sequence[str]], Awaitable[None]], topics: Iterable[str]) -> None:
        await checkpoint()
        left = iter(topics)
        try:
            while chunk := [self._prefix + topic for topic in islice(left, CHUNK)]:
                await command(chunk)
        except SecureConnectError as error:
            raise BusAway(str(error)) from error


class _Inbox:
    """What was heard and not yet handed over. Filled by the connection's reader."""

    def __init__(self, prefix: str, limits: Limits) -> None:
        self.connection: Connection | None = None
        self._cut_off, self._limits = len(prefix.encode()), limits
        self._messages: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0
        self._is_over = False
        self._changed: anyio.Event | None = None

    @property
    def waiting(self) -> int:
        return len(self._messages)

    def on_push(self, push: list[Reply]) -> None:
        match push:
            case [b"message", bytes(topic), bytes(data)] if not self._is_over:
                self._put(topic, data)

    def take(self) -> tuple[str, bytes] | None:
        if not self._messages:
            return None
        topic, data = self._messages.popleft()
        self._bytes -= len(data)
        return topic[self._cut_off :].decode(errors="replace"), data

    async def changed(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _put(self, topic: bytes, data: bytes) -> None:
        self._messages.append((topic, data))
        self._bytes += len(data)
        if len(self._messages) > self._limits.messages_max or self._bytes > self._limits.bytes_max:
            assert self.connection is not None, "nothing is heard before it listens"
            self._is_over = True
            self._messages.clear()
            self.connection.cut("this node does not keep up with what it hears")
        self.wake()


def topic_prefix(address: Address) -> str:
    """Stands before every topic of ours on the server."""
    return f"secureconnect/{address.database}/"
