"""The life of a listener: accept, serve, and on the way out drain while alive, cancel after.

Order of an ending: take no more connections; tell every socket when to come back, each at its own moment, serving commands
meanwhile; then cancel what is left. A peer that does not read holds nothing: its writes have deadlines of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from secureconnect.ports import Listener, Transport
from secureconnect.server.health import Readiness

ACCEPT_PAUSE_S = 0.1
"""Pause after the process ran out of descriptors: connections wait in the kernel's backlog meanwhile."""

_log = structlog.get_logger("secureconnect.serve")


class Face(Protocol):
    """What serves connections: the front."""

    async def serve_connection(self, transport: Transport) -> None:
        """The whole life of one connection; never raises but on cancellation."""
        ...

    async def drain(self) -> None:
        """Close idle connections, answer the requests under way, each with `Connection: close`; return when all are answered."""
        ...


class Sockets(Protocol):
    """What holds sockets: the gateway."""

    async def drain(self, grace_s: float) -> None:
        """Send every socket away, paced over at most `grace_s`; returns when all have gone, or the time is over."""
        ...


class Server:
    """Runs one listener until told to stop."""

    def __init__(self, listener: Listener, face: Face, sockets: Sockets, *, readiness: Readiness, grace_s: float) -> None:
        self._listener = listener
        self._face = face
        self._sockets = sockets
        self._readiness = readiness
        self._grace_s = grace_s
        self._stop = trio.Event()
        self._at_once = trio.Event()
        self._ended = trio.Event()
        self._is_over = False
        self.unexpected = 0
        """Exceptions that came out of a connection, since the start."""

    async def wait_ended(self) -> None:
        """Until `run` has ended: drained, or cut short."""
        await self._ended.wait()

    def stop(self) -> None:
        """Begin the ending; a second call ends at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`, then drain for at most the grace. Cancellation: as a second `stop`."""
        async with trio.open_nursery() as connections:
            connections.start_soon(self._accept, connections.start_soon)
            task_status.started()
            await self._stop.wait()
            self._readiness.draining = True
            _log.info("draining", grace_s=self._grace_s)
            await self._drain()  # still listening: whoever asks is told that this server is not ready
            self._is_over = True
            self._listener.close()
            connections.cancel_scope.cancel()
        _log.info("stopped")
        self._ended.set()

    async def _drain(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_at_once, nursery.cancel_scope)
            with trio.move_on_after(self._grace_s):
                async with trio.open_nursery() as drains:
                    drains.start_soon(self._face.drain)
                    drains.start_soon(self._sockets.drain, self._grace_s)
            nursery.cancel_scope.cancel()

    async def _cancel_at_once(self, scope: trio.CancelScope) -> None:
        await self._at_once.wait()
        scope.cancel()

    async def _accept(self, spawn: Callable[..., None]) -> None:
        while not self._is_over:
            try:
                transport = await self._listener.accept()
            except OSError as error:
                if self._is_over:
                    return
                _log.warning("accept_failed", error=str(error))
                await trio.sleep(ACCEPT_PAUSE_S)
            else:
                spawn(self._contained, transport)

    async def _contained(self, transport: Transport) -> None:
        """One connection. The face contains its own requests; what still comes out of it is a bug that ends this one only."""
        try:
            await self._face.serve_connection(transport)
        except Exception:  # noqa: BLE001  # the door of one connection: it is logged, counted, and ends nobody else
            self.unexpected += 1
            _log.exception("unexpected", peer=transport.peer)
            transport.abort()
