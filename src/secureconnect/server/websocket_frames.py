"""WebSocket frames as bytes: reading a client's (RFC 6455 §5, pure, no I/O) and building a server's.

Theory. A chat client sends whole, masked text frames and little else, so the reader looks for exactly that first. Everything
else takes the general path below it: fragments, binary messages, control frames between fragments, close. Extensions are not
negotiated, so a reserved bit is a violation. What follows a violation in the stream has no meaning: after `FrameError` the reader
must not be fed again. Limits: a message is refused by its announced length, before its bytes are kept, so a reader never holds
more than `message_bytes_max` and one read. Text is checked as UTF-8, in fragments as they come.

Why not websockets' sans-I/O protocol: it costs 4.8 KiB a connection and five times the time, and does not check UTF-8 (measured,
libraries of 2026-11). Its C loop for the mask is used.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled wheel
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
"""Opcodes (RFC 6455 §5.2)."""
NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED, BAD_TEXT, POLICY, TOO_BIG, INTERNAL, RESTART, TRY_LATER = (
    1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013,
)  # fmt: skip
"""Close codes (RFC 6455 §7.4.1 and the IANA registry)."""
FRAGMENTS_MAX = 4096
"""Frames of one message. A client that needs more is not talking to us but at us; websockets' own default."""
CONTROL_BYTES_MAX = 125
_REASON_BYTES_MAX = 123
_IS_FINAL, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_IS_MASKED, _LENGTH = 0x80, 0x7F
_FINAL_TEXT = _IS_FINAL | TEXT
_SENT_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_IncrementalUtf8 = codecs.getincrementaldecoder("utf-8")

Frame = tuple[int, bytes]
"""(TEXT or BINARY, a whole message) or (CLOSE, PING or PONG, its payload)."""


class FrameError(Exception):
    """The client broke the protocol or a limit: close with `code` and the word `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class FrameReader:
    """Turns a client's bytes into messages and control frames. Between two frames it holds nothing."""

    __slots__ = ("_buffer", "_fragments", "_message", "_opcode", "_text", "message_bytes_max")

    def __init__(self, message_bytes_max: int) -> None:
        self.message_bytes_max = message_bytes_max
        """May be changed at any time; it binds the next frame."""
        self._buffer: bytearray | None = None  # the beginning of a frame whose rest has not come
        self._message: bytearray | None = None  # the fragments so far
        self._opcode = 0
        self._fragments = 0
        self._text: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield what `data` completes, in order. Exhaust or drop the iterator before the next call; dropped, the rest is kept.

        Raises: FrameError, after everything in front of the violation was yielded.
        """
        buffer: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            buffer, self._buffer = self._buffer, None
        at, end = 0, len(buffer)
        try:
            while end - at >= 2:
                first, length = buffer[at], buffer[at + 1] - _IS_MASKED
                start = at + 2
                if length >= 126:
                    start += 2 if length == 126 else 8
                    if end < start:
                        self._check_header(first, length, 0)
                        return
                    length = int.from_bytes(buffer[at + 2 : start], "big")
                if first != _FINAL_TEXT or self._message is not None or not 0 <= length <= self.message_bytes_max:
                    self._check_header(first, buffer[at + 1] - _IS_MASKED, length)
                body, stop = start + 4, start + 4 + length
                if stop > end:
                    return
                payload = apply_mask(buffer[body:stop], buffer[start:body])
                at = stop
                if first == _FINAL_TEXT:
                    if not payload.isascii():
                        _check_text(payload)
                    yield TEXT, payload
                else:
                    yield from self._general(first, payload)
        finally:
            if at < end:
                self._keep(buffer, at)

    def _keep(self, buffer: bytes | bytearray, at: int) -> None:
        if isinstance(buffer, bytearray):
            del buffer[:at]
            self._buffer = buffer
        else:
            self._buffer = bytearray(memoryview(buffer)[at:])

    def _check_header(self, first: int, short_length: int, length: int) -> None:
        """What a header alone can show to be wrong. `short_length` is that of the second byte; `length` 0 while unknown."""
        opcode = first & _OPCODE
        if short_length < 0:
            raise FrameError(PROTOCOL_ERROR, "unmasked")
        if first & _RESERVED:
            raise FrameError(PROTOCOL_ERROR, "reserved_bit")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(PROTOCOL_ERROR, "reserved_opcode")
            if not first & _IS_FINAL or short_length > CONTROL_BYTES_MAX:
                raise FrameError(PROTOCOL_ERROR, "bad_control_frame")
            return
        if opcode > BINARY:
            raise FrameError(PROTOCOL_ERROR, "reserved_opcode")
        if (opcode == CONTINUATION) != (self._message is not None):
            raise FrameError(PROTOCOL_ERROR, "bad_fragment")
        if length + len(self._message or b"") > self.message_bytes_max:
            raise FrameError(TOO_BIG, "too_big")

    def _general(self, first: int, payload: bytes) -> Iterator[Frame]:
        opcode = first & _OPCODE
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
            yield opcode, payload
        elif opcode == BINARY and first & _IS_FINAL:
            yield BINARY, payload
        else:
            if opcode != CONTINUATION:
                self._message, self._opcode, self._fragments = bytearray(), opcode, 0
                self._text = _IncrementalUtf8() if opcode == TEXT else None
            yield from self._fragment(payload, is_last=bool(first & _IS_FINAL))

    def _fragment(self, payload: bytes, *, is_last: bool) -> Iterator[Frame]:
        assert self._message is not None
        self._fragments += 1
        if self._fragments > FRAGMENTS_MAX:
            raise FrameError(TOO_BIG, "too_big")
        if self._text is not None:
            try:
                self._text.decode(payload, is_last)
            except UnicodeDecodeError:
                raise FrameError(BAD_TEXT, "bad_utf8") from None
        self._message += payload
        if is_last:
            message, self._message, self._text = bytes(self._message), None, None
            yield self._opcode, message


def _check_text(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise FrameError(BAD_TEXT, "bad_utf8") from None


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _SENT_CODES or 3000 <= code <= 4999):
        raise FrameError(PROTOCOL_ERROR, "bad_close")
    _check_text(payload[2:])


def close_code(payload: bytes) -> int:
    """The code of a received close frame; 1005 when it has none (RFC 6455 §7.1.5)."""
    return int.from_bytes(payload[:2], "big") if payload else 1005


def server_frame(opcode: int, payload: bytes) -> bytes:
    """One whole unmasked frame. We never fragment: what leaves in one write stays one message."""
    length = len(payload)
    if length < 126:
        return bytes((_IS_FINAL | opcode, length)) + payload
    if length < 65_536:
        return b"%c\x7e%b%b" % (_IS_FINAL | opcode, length.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (_IS_FINAL | opcode, length.to_bytes(8, "big"), payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """`code` 1005 or 1006 mean that none is sent (RFC 6455 §7.4.1). `reason` is cut to what a control frame holds."""
    if code in {1005, 1006}:
        return server_frame(CLOSE, b"")
    return server_frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:_REASON_BYTES_MAX])


PING_FRAME = server_frame(PING, b"")
