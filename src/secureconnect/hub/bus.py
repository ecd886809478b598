"""The bus between nodes: short-lived topics, at most once, no memory. What it loses the digest and the log repair.

`MemoryBus` joins the hubs of one process: tests, simulators, and the single node, which then has nobody to talk to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import anyio
from anyio.lowlevel import checkpoint

from .errors import BusAway

LINK_MESSAGES_MAX = 10_000
"""Messages that wait for one node in a MemoryBus; a node that is that late is cut, as a server would."""


class Link(Protocol):
    """One subscriber's connection. `listen` and `unlisten` may be called while another task receives."""

    async def listen(self, topics: Iterable[str]) -> None:
        """Return when the bus has confirmed all of them: what is published from now on arrives. Raises: BusAway.

        Cancellation: some may be confirmed later; listening again does no harm.
        """
        ...

    async def unlisten(self, topics: Iterable[str]) -> None:
        """Stop. Stragglers may still arrive. Raises: BusAway."""
        ...

    async def receive(self) -> tuple[str, bytes]:
        """The next message: topic and data. Raises: BusAway, when the link was cut; it is of no further use."""
        ...


class Bus(Protocol):
    """Publish and subscribe. The hub sets the deadline of every call."""

    @property
    def alone(self) -> bool:
        """No other node can be listening, so that nothing need be encoded. When in doubt, False."""
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """To every node that listens to `topic`, this one included. Raises: BusAway. Cancellation: it may be delivered."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[Link]:
        """A fresh link, for the length of the block. Entering raises BusAway."""
        ...


class MemoryBus:
    """A bus inside one process, shared by its hubs."""

    def __init__(self) -> None:
        self._links: dict[MemoryLink, None] = {}
        self._alone = True

    @property
    def alone(self) -> bool:
        """Until a second hub has subscribed for the first time; one that comes later reads the log's tail behind that."""
        return self._alone

    async def publish(self, topic: str, data: bytes) -> None:
        await checkpoint()
        for link in list(self._links):
            link.deliver(topic, data)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[MemoryLink]:
        await checkpoint()
        link = MemoryLink()
        self._links[link] = None
        self._alone = self._alone and len(self._links) < 2
        try:
            yield link
        finally:
            del self._links[link]
            link.cut()

    def cut(self) -> None:
        """End every link, as a restart of the bus would. The hubs come back by themselves."""
        for link in list(self._links):
            link.cut()


class MemoryLink:
    """A link of a MemoryBus."""

    def __init__(self) -> None:
        self._topics: dict[str, None] = {}
        self._messages: deque[tuple[str, bytes]] = deque()
        self._changed: anyio.Event | None = None
        self._is_cut = False

    async def listen(self, topics: Iterable[str]) -> None:
        await checkpoint()
        if self._is_cut:
            raise BusAway("the link was cut")
        self._topics.update(dict.fromkeys(topics))

    async def unlisten(self, topics: Iterable[str]) -> None:
        await checkpoint()
        for topic in topics:
            self._topics.pop(topic, None)

    async def receive(self) -> tuple[str, bytes]:
        await checkpoint()
        while not self._messages:
            if self._is_cut:
                raise BusAway("the link was cut")
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._messages.popleft()

    def deliver(self, topic: str, data: bytes) -> None:
        """Keep a message until it is received; too many end the link."""
        if topic not in self._topics or self._is_cut:
            return
        if len(self._messages) >= LINK_MESSAGES_MAX:
            self.cut()
            return
        self._messages.append((topic, data))
        self._wake()

    def cut(self) -> None:
        """What was not received is lost. Idempotent."""
        self._is_cut = True
        self._messages.clear()
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
