"""HTTP/1.1 request bodies out of bytes: of a told length, or chunked; pure, strict, bounded."""

from __future__ import annotations

import re
from typing import Protocol

from secureconnect.errors import TooLarge
from secureconnect.server.front_parser import PLAIN, TOKEN, Inbox, Malformed
from secureconnect.server.message import Head

CHUNK_LINE_BYTES_MAX = 256
"""A chunk's size line with its extensions; nobody sends any."""
EXTRAS_BYTES_MAX = 8_192
"""All extensions and trailers of one body: they are read and dropped, so they must not be a way to send for ever."""
CHUNKS_MAX = 16_384
"""Of one body: 64 bytes each for 1 MiB. A chunk costs about 3 µs however small it is."""
STEPS_PER_TURN = 512
"""Lines and pieces of a chunked body read before others have their turn, about 0.5 ms: a read of 64 KiB can hold 30,000."""

NEVER_TRAILERS = frozenset(
    (b"transfer-encoding", b"content-length", b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"expect",
     b"max-forwards", b"range", b"cache-control", b"pragma", b"content-encoding", b"content-type", b"content-range",
     b"authorization", b"proxy-authorization", b"proxy-connection", b"cookie", b"set-cookie", b"origin", b"forwarded",
     b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-session-id", b"idempotency-key")
)  # fmt: skip
"""What frames, routes or authorises a request cannot come behind it (RFC 9110 §6.5.1): who merges trailers into the headers would
read another request than we did."""

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Body(Protocol):
    """Takes one request's body out of the inbox. `begun`: something of it was here."""

    done: bool
    begun: bool
    is_paused: bool
    """The last `pull` stopped to let others have their turn: pull again behind a checkpoint, without more bytes."""

    def pull(self, inbox: Inbox) -> bytes:
        """What is there now; b"" when more bytes are needed, or it is `done` or paused. Raises: Malformed, TooLarge."""
        ...


class SizedBody:
    """A body of a length told beforehand."""

    __slots__ = ("_left", "begun", "done", "is_paused")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.begun = self.is_paused = False

    def pull(self, inbox: Inbox) -> bytes:
        piece = inbox.take(self._left)
        self.begun = self.begun or bool(piece)
        self._left -= len(piece)
        self.done = self._left == 0
        return piece


class ChunkedBody:
    """A chunked body (RFC 9112 §7.1). Extensions and trailers are read, bounded and dropped: nothing here believes them."""

    __slots__ = ("_chunks", "_extras", "_left", "_max", "_place", "_total", "begun", "done", "is_paused")

    def __init__(self, bytes_max: int) -> None:
        self._max = bytes_max
        self._left = 0  # of the present chunk
        self._total = 0
        self._chunks = 0
        self._extras = 0
        self._place = "size"  # then "data", "end" of it, "size" again …; after the last chunk "trailer"
        self.done = self.begun = self.is_paused = False

    def pull(self, inbox: Inbox) -> bytes:
        pieces = []
        steps = 0
        self.is_paused = False
        self.begun = self.begun or len(inbox) > 0
        while not self.done:
            steps += 1
            if steps > STEPS_PER_TURN:
                self.is_paused = True
                break
            if self._place == "data":
                piece = inbox.take(self._left)
                if not piece:
                    break
                pieces.append(piece)
                self._left -= len(piece)
                if not self._left:
                    self._place = "end"
            elif not self._framing(inbox):
                break
        return b"".join(pieces)

    def _framing(self, inbox: Inbox) -> bool:
        """One line that is not data; False until it is there."""
        if self._place == "end":
            return self._end_chunk(inbox)
        line = inbox.line(CHUNK_LINE_BYTES_MAX if self._place == "size" else EXTRAS_BYTES_MAX)
        if line is None:
            return False
        if self._place == "size":
            self._begin_chunk(line)
        elif line:
            self._drop_trailer(line)
        else:
            self.done = True
        return True

    def _end_chunk(self, inbox: Inbox) -> bool:
        if len(inbox) < 2:
            return False
        if inbox.take(2) != b"\r\n":
            raise Malformed("chunk_end", "A chunk does not end where its size says")
        self._place = "size"
        return True

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Malformed("chunk_size", "A chunk's size is not a hexadecimal number")
        self._chunks += 1
        if self._chunks > CHUNKS_MAX:
            raise Malformed("chunks", f"The body has more than {CHUNKS_MAX} chunks")
        digits = match[1]
        self._drop(len(line) - len(digits))
        self._left = int(digits, 16)
        self._total += self._left
        if self._total > self._max:
            raise body_too_large(self._max)
        self._place = "data" if self._left else "trailer"

    def _drop_trailer(self, line: bytes) -> None:
        self._drop(len(line) + 2)
        name, colon, value = line.partition(b":")
        if not colon or not TOKEN.fullmatch(name) or value.translate(None, PLAIN):
            raise Malformed("trailer", "A trailer line is not valid")
        if name.lower() in NEVER_TRAILERS:
            raise Malformed("trailer_name", f"{name.decode('ascii')} cannot be a trailer")

    def _drop(self, size: int) -> None:
        self._extras += size
        if self._extras > EXTRAS_BYTES_MAX:
            raise Malformed("chunk_extras", "The chunked body has too many extensions or trailers")


def body_of(head: Head, bytes_max: int) -> Body:
    """Raises: TooLarge at once when the length told is over `bytes_max`."""
    if head.length is None:
        return ChunkedBody(bytes_max)
    if head.length > bytes_max:
        raise body_too_large(bytes_max)
    return SizedBody(head.length)


def body_too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body is over {bytes_max} bytes", details={"field": "body", "bytes_max": bytes_max})
