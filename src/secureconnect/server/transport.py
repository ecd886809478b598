"""The kernel's sockets behind the ports `Transport` and `Listener`: non-blocking, bounded in the kernel too, no streams between.

Why not trio's streams: a broadcast writes to thousands of idle sockets in one synchronous step, so `send_now` *is* the socket's
own `send` method, and an idle connection costs one waiting task and this small object. Only waiting goes through trio.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

import structlog
import trio

from secureconnect.errors import CannotListen
from secureconnect.server.origins import plain_host

BACKLOG = 4096
"""Connections the kernel completes before we accept them; it cuts this to `net.core.somaxconn`. A storm of reconnects fits."""
SEND_BUFFER_BYTES = 256 * 1024
"""SO_SNDBUF. Left alone the kernel hides up to 4 MiB from a reader who never reads; the outbox is where waiting is counted."""
USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: sent but not acknowledged for this long, and the connection is gone (kernel's default: about 15 minutes)."""
KEEPALIVE_IDLE_S = 60
KEEPALIVE_INTERVAL_S = 15
KEEPALIVE_PROBES = 3
"""A peer that vanished without FIN is found even where nobody sends: the user timeout ends the probing, after about 90 s."""
PAUSE_S = 0.1
"""How long the listener rests when the process has no descriptor left even after giving up its spare one."""
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = structlog.get_logger("secureconnect.transport")


class SocketTransport:
    """One accepted TCP connection. `send_now` is the socket's own `send`: no Python code runs per write."""

    __slots__ = ("_socket", "peer", "send_now")

    def __init__(self, connected: socket.socket, peer: str) -> None:
        """Takes over `connected`, which must be non-blocking."""
        self._socket = connected
        self.peer = peer
        self.send_now = connected.send

    async def wait_writable(self) -> None:
        """Raises: OSError when the connection was aborted. Cancellation: nothing is lost."""
        self._check_open()
        try:
            await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            raise ConnectionAbortedError("closed on this side") from None

    async def receive(self, max_bytes: int, /) -> bytes:
        """Waits first and reads then: an idle peer costs one system call less, and a busy one cannot starve the loop.

        Raises: ConnectionError when the connection is gone. Cancellation: nothing is lost.
        """
        while True:
            self._check_open()
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return self._socket.recv(max_bytes)
            except BlockingIOError:  # a wake-up without bytes: a bad checksum, or another reader of the descriptor
                continue
            except trio.ClosedResourceError:
                raise ConnectionAbortedError("closed on this side") from None

    def send_eof(self) -> None:
        """No more will be written (half close). Idempotent; never raises."""
        with suppress(OSError):  # gone already, which says the same
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close now and wake whoever waits. Idempotent; never raises. Unread bytes of the peer make it a reset."""
        if self._socket.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise ConnectionAbortedError("closed on this side")


class SocketListener:
    """A listening TCP socket. Made by `open_listener`."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self._spare = _spare_descriptor()
        self.refused = 0
        """Connections closed unserved because the process had no descriptor left, since the start."""
        host, port = listening.getsockname()[:2]
        self.port: int = port
        self.url = f"http://{_reachable(host)}:{port}"

    async def accept(self) -> SocketTransport:
        """The next connection, ready to be used.

        Out of descriptors, one waiting connection is closed with the help of a spare descriptor, so that its peer learns at once
        instead of hanging in the backlog; then it rests a moment and goes on.

        Raises: OSError after `close`. Cancellation: nothing is lost.
        """
        while True:
            if self._socket.fileno() < 0:
                raise OSError(errno.EBADF, "the listener is closed")
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                raise OSError(errno.EBADF, "the listener is closed") from None
            try:
                return _prepared(*self._socket.accept())
            except OSError as error:
                if error.errno in _OUT_OF_ROOM:
                    await self._out_of_room()
                # anything else is about that one connection, which went away while it waited (accept(2), "Error handling")

    def close(self) -> None:
        """Take no more connections. Idempotent."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def _out_of_room(self) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # at 1, 2, 4, 8 …: the log must not need the descriptors we lack
            _log.warning("out_of_descriptors", refused=self.refused, cure="raise the limit of open files, or lower SOCKETS_MAX")
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            with suppress(OSError):  # another thread took the descriptor: then the pause below is all there is to do
                self._socket.accept()[0].close()
        self._spare = _spare_descriptor()
        await trio.sleep(PAUSE_S)


def open_listener(host: str, port: int) -> SocketListener:
    """Listen on `host`:`port` (port 0: a free one; host "": every address, IPv6 too where the machine has it).

    Raises: CannotListen naming the setting when the address is unknown, taken or not permitted.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotListen(
            f"SECURECONNECT_HOST: {host!r} is no address of this machine ({error}); for example 127.0.0.1"
        ) from error
    wanted = socket.AF_INET if host else socket.AF_INET6  # a name with both is taken by IPv4: every client can reach that
    family, kind, protocol, _, address = max(found, key=lambda entry: entry[0] == wanted)
    try:
        return SocketListener(_listening(family, kind, protocol, address, both=not host))
    except OSError as error:
        if not host and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:  # IPv6 is known here, but switched off
            return open_listener("0.0.0.0", port)
        raise CannotListen(_why_not(host, port, error)) from error


def _listening(family: int, kind: int, protocol: int, address: Any, *, both: bool) -> socket.socket:  # noqa: ANN401  # as getaddrinfo gives it
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # inherited by what it accepts
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"SECURECONNECT_PORT: port {port} is taken by another program; stop it, or choose another one, for example {port + 1}"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"SECURECONNECT_PORT: this user may not listen on port {port}; choose one above 1023, for example 8080"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"SECURECONNECT_HOST: {host!r} is no address of this machine; for example 127.0.0.1"
    return f"SECURECONNECT_HOST, SECURECONNECT_PORT: cannot listen on {host}:{port} ({error.strerror})"


def _prepared(connected: socket.socket, address: tuple[Any, ...]) -> SocketTransport:
    try:
        connected.setblocking(False)
        for level, option, value in _OPTIONS:
            connected.setsockopt(level, option, value)
    except OSError:
        connected.close()
        raise
    host, port = plain_host(address[0]), address[1]
    return SocketTransport(connected, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _options() -> tuple[tuple[int, int, int], ...]:
    wanted = (
        ("TCP_NODELAY", 1),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),  # Linux
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    )
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted if hasattr(socket, name)]
    return (*known, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))


_OPTIONS = _options()


def _spare_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _reachable(host: str) -> str:
    """What a client on this machine may use to reach a listener on `host`."""
    if host in {"0.0.0.0", "::"}:
        return "127.0.0.1"
    if host.startswith("::ffff:"):
        return host.removeprefix("::ffff:")
    return f"[{host}]" if ":" in host else host
