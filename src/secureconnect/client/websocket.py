"""One WebSocket connection of the client over anyio: RFC 6455 by websockets' sans-I/O protocol, the bytes by anyio streams."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from secureconnect.client.errors import ClientError

HANDSHAKE_S = 10.0
CLOSE_S = 2.0
FRAME_BYTES_MAX = 8 * 1024 * 1024
"""Largest message that we take; the server's own limit is far below."""
SUBPROTOCOL = "secureconnect.v1"


class HandshakeRefused(ClientError):
    """The server answered the upgrade with an HTTP status instead."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"upgrade refused with status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


class SocketClosed(ClientError):
    """The connection ended. `code` and `reason` of the close frame, 1006 when there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocket:
    """An open socket. One task receives; any may send."""

    def __init__(self, stream: ByteStream, protocol: ClientProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._turn = anyio.Lock()
        self._ready: deque[str] = deque()
        self._parts: list[bytes] = []

    async def send(self, text: bytes) -> None:
        """Raises: SocketClosed. Cancellation: whole or not at all; when it was cut in two, the connection is ended."""
        if self._protocol.state is not OPEN:
            raise self._ended()
        self._protocol.send_text(text)
        await self._flush()

    async def receive(self) -> str:
        """The next text message. Raises: SocketClosed. Cancellation: nothing is lost."""
        while not self._ready:
            try:
                data = await self._stream.receive()
            except anyio.EndOfStream:
                self._protocol.receive_eof()
                raise self._ended() from None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                raise self._ended() from None
            self._protocol.receive_data(data)
            self._take()
            if not self._turn.locked():  # whoever writes now writes our pong too: reading must not wait for writing
                await self._flush()
        return self._ready.popleft()

    def _take(self) -> None:
        for frame in self._protocol.events_received():
            if isinstance(frame, Frame) and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    self._ready.append(b"".join(self._parts).decode("utf-8", "replace"))
                    self._parts.clear()

    async def _flush(self) -> None:
        async with self._turn:
            while chunks := self._protocol.data_to_send():
                try:
                    for data in chunks:
                        await (self._stream.send(data) if data else self._stream.aclose())
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    raise self._ended() from None
                except BaseException:
                    await anyio.aclose_forcefully(self._stream)  # half a frame is out: nobody can go on behind it
                    raise

    def _ended(self) -> SocketClosed:
        code, reason = self._protocol.close_code, self._protocol.close_reason
        return SocketClosed(code if code is not None else 1006, reason or "")


@asynccontextmanager
async def open_websocket(url: str, *, token: str) -> AsyncIterator[WebSocket]:
    """Connect and shake hands within 10 s; on leaving say goodbye within 2 s. `url` begins with ws: or wss:.

    Raises: HandshakeRefused, SocketClosed, OSError, TimeoutError.
    """
    parts = urlsplit(url)
    with anyio.fail_after(HANDSHAKE_S):
        stream = await _dial(parts.hostname or "", parts.port, tls=parts.scheme == "wss")
    try:
        with anyio.fail_after(HANDSHAKE_S):
            socket = await _shake_hands(stream, url, token)
        try:
            yield socket
        finally:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await _say_goodbye(socket)
    finally:
        await anyio.aclose_forcefully(stream)


async def _dial(host: str, port: int | None, *, tls: bool) -> ByteStream:
    if tls:
        return await anyio.connect_tcp(host, port or 443, tls=True, tls_standard_compatible=False)
    return await anyio.connect_tcp(host, port or 80)


async def _shake_hands(stream: ByteStream, url: str, token: str) -> WebSocket:
    protocol = ClientProtocol(parse_uri(url), subprotocols=[SUBPROTOCOL], max_size=FRAME_BYTES_MAX)  # type: ignore[list-item]  # Subprotocol is a NewType of str
    request = protocol.connect()
    request.headers["Authorization"] = f"Bearer {token}"
    protocol.send_request(request)
    events: Sequence[object] = ()
    try:
        for data in protocol.data_to_send():
            await stream.send(data)
        while not events:
            protocol.receive_data(await stream.receive())
            events = protocol.events_received()
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise SocketClosed(1006, "") from None
    _check(protocol, events[0])
    socket = WebSocket(stream, protocol)
    for frame in events[1:]:
        if isinstance(frame, Frame):
            socket._parts.append(bytes(frame.data))
            if frame.fin:
                socket._ready.append(b"".join(socket._parts).decode("utf-8", "replace"))
                socket._parts.clear()
    return socket


def _check(protocol: ClientProtocol, answer: object) -> None:
    failure = protocol.handshake_exc
    if failure is None:
        return
    if isinstance(failure, InvalidStatus) and isinstance(answer, Response):
        after = answer.headers.get("Retry-After", "")
        raise HandshakeRefused(answer.status_code, float(after) if after.isdigit() else None)
    if isinstance(failure, InvalidHandshake):
        raise HandshakeRefused(0, None) from failure
    raise SocketClosed(1006, "") from failure


async def _say_goodbye(socket: WebSocket) -> None:
    try:
        if socket._protocol.state is OPEN:
            socket._protocol.send_close(1000)
        await socket._flush()
        while True:
            await socket.receive()
    except SocketClosed:
        return
