"""A WebSocket client over any `ports.Transport`, for the failure lab: strict about what it gets, free in what it sends.

It shares no code with the server's frame reader, so it finds what that hides. It never answers by itself (no pong, no close): the
test decides what a peer does and what it leaves undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import trio

from secureconnect.ports import Transport

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455 §1.3."""
_MASK = b"\x37\xfa\x21\x3d"
"""A client's mask must be unpredictable to scripts in browsers; here it may as well be the RFC's."""


class Ended(Exception):
    """The server ended the connection. `code` and `reason` are those of its close frame, 1006 when there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answered:
    """What the handshake got."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0, is_masked: bool = True) -> bytes:
    """A client's frame, also such as no good client makes."""
    size = len(payload)
    mask_bit = 0x80 if is_masked else 0
    if size < 126:
        length = bytes((mask_bit | size,))
    elif size < 65_536:
        length = bytes((mask_bit | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask_bit | 127,)) + size.to_bytes(8, "big")
    head = bytes((fin << 7 | reserved | opcode,)) + length
    if not is_masked:
        return head + payload
    return head + _MASK + masked(payload)


def masked(payload: bytes) -> bytes:
    """`payload` under the client's mask."""
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


@dataclass(slots=True)
class SocketClient:
    """One client. Call `upgrade` first, except where the server's end was made a socket without one."""

    transport: Transport
    events: list[dict[str, object]] = field(default_factory=list)
    """Events that came while `call` waited for an answer, in order."""
    _buffer: bytearray = field(default_factory=bytearray)
    _last_id: int = 0

    # -- sending

    async def send(self, data: bytes) -> None:
        """Raises: OSError when the connection is gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.transport.send_now(rest) :]
            except BlockingIOError:
                await self.transport.wait_writable()
        await trio.lowlevel.checkpoint()

    async def say(self, message: object) -> None:
        """Send `message` as JSON in a text frame."""
        await self.send(frame(msgspec.json.encode(message)))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        await self.send(frame(code.to_bytes(2, "big") + reason.encode(), CLOSE))

    # -- receiving

    async def upgrade(self, path: str = "/v1/ws", headers: Mapping[str, str] = {}, *, method: str = "GET") -> Answered:
        """Ask for the upgrade; the answer may be a refusal. A header that is given replaces the usual one; "" takes it away."""
        usual = {
            "Host": "chat.test",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": KEY,
        }
        lines = [f"{name}: {value}" for name, value in {**usual, **headers}.items() if value]
        await self.send("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        return await self.upgraded()

    async def upgraded(self) -> Answered:
        """The answer to a handshake. Raises: Ended when there is none."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status, size = int(status_line.split()[1]), int(found.get("content-length", "0"))
        self._buffer = bytearray(rest)
        if status == 101:
            assert found["sec-websocket-accept"] == ACCEPT, "the server must prove that it read the key"
            return Answered(status, found)
        while len(self._buffer) < size:
            await self._more()
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return Answered(status, found, body)

    async def receive(self) -> tuple[int, bytes]:
        """The next frame, whatever it is: (opcode, payload). Raises: Ended at the end of the stream."""
        while (found := self._next_frame()) is None:
            await self._more()
        return found

    async def message(self) -> dict[str, object]:
        """The next text frame as JSON; pings are passed over. Raises: Ended for a close frame or the end of the stream."""
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                raise Ended(int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode())
            if opcode == TEXT:
                return self.decoded(payload)
            assert opcode in {PING, PONG}, f"unexpected opcode {opcode}"

    def decoded(self, payload: bytes) -> dict[str, object]:
        """A text frame's JSON object."""
        decoded: dict[str, object] = msgspec.json.decode(payload, type=dict[str, object])
        return decoded

    async def next_event(self) -> dict[str, object]:
        """The next event; raises as `message`. An answer at this point is a mistake of the test."""
        if self.events:
            return self.events.pop(0)
        message = await self.message()
        assert "event" in message, message
        return message

    async def answer(self, command_id: object) -> dict[str, object]:
        """The answer under this id; events before it are kept in `events`. Raises: as `message`."""
        while True:
            message = await self.message()
            if "event" not in message:
                assert message.get("id") == command_id, message
                return message
            self.events.append(message)

    async def call(self, method: str, **params: object) -> dict[str, object]:
        """Run a command and return its whole answer. Raises: as `message`."""
        self._last_id += 1
        await self.say({"id": self._last_id, "method": method, "params": params})
        return await self.answer(self._last_id)

    async def end(self) -> Ended:
        """Read on until the server has ended the connection; how it did."""
        try:
            while True:
                await self.message()
        except Ended as ended:
            return ended

    # -- bytes

    async def _more(self) -> None:
        try:
            data = await self.transport.receive(65_536)
        except OSError as error:
            raise Ended(1006, str(error)) from error
        if not data:
            raise Ended(1006, "the stream ended")
        self._buffer += data

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        assert buffer[0] & 0x70 == 0, f"torn or reserved: {bytes(buffer[:16])!r}"
        assert buffer[0] & 0x80, "servers here never fragment"
        assert buffer[1] & 0x80 == 0, "a server's frame is not masked"
        opcode, size, start = buffer[0] & 0x0F, buffer[1], 2
        assert opcode in {TEXT, BINARY, CLOSE, PING, PONG}, f"torn: {bytes(buffer[:16])!r}"
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
            assert opcode < CLOSE, "a control frame is short"
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return opcode, payload
