"""HTTP/1.1 request heads out of bytes: pure, strict, bounded. llhttp (httptools) reads the headers, we decide what is acceptable.

A front stands behind proxies that may read the same bytes differently, and every difference is a way to smuggle a request past
them. So whatever two readers could disagree about is refused by name and the connection closed, never repaired (RFC 9112 §11.2).
The head is cut out of the stream first and its raw bytes are checked here. llhttp 9 (httptools 0.9, tried case by case) accepts
two spaces in the request line, RTSP and ICE requests, HTTP/0.9 and 2.0, fragments, `Transfer-Encoding` in HTTP/1.0 or with other
codings before `chunked`, a missing or repeated Host. It does refuse bare CR and LF, folded lines, blanks before the colon,
control characters, two or odd Content-Lengths; the rule and its name are ours all the same, not a parser's default.

Requests of one connection are parsed one at a time, each with a fresh parser (1.2 µs): what a peer pipelines waits as bytes, at
most one read of them, and an idle connection keeps none.
"""

from __future__ import annotations

import re

import httptools

from secureconnect.errors import BadRequest, MethodNotAllowed, TooLarge
from secureconnect.server.message import Head

HEAD_BYTES_MAX = 32_768
"""Request line and headers together."""
HEADERS_MAX = 100

PLAIN = bytes(byte for byte in range(256) if (byte >= 0x20 and byte != 0x7F) or byte == 0x09)
"""What may stand in a head beside CR LF: printable ASCII, tab, and bytes from 0x80 on (obs-text, RFC 9110 §5.5)."""
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110 §5.6.2)."""
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_REQUEST_LINE = re.compile(rb"([A-Z]{1,32}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)([/?].*)?", re.IGNORECASE)
_ONCE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin", b"content-type", b"expect",
     b"sec-websocket-key", b"sec-websocket-version", b"x-session-id", b"idempotency-key", b"upgrade")
)  # fmt: skip
"""Headers of one meaning: repeated, they would let two readers believe different things."""


class Malformed(BadRequest):
    """Not an acceptable HTTP/1.1 request. `details.reason` names the rule. The connection cannot be used further."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, details={"reason": reason})
        self.reason = reason


class HeadTooLarge(TooLarge):
    """Request line and headers are over their limits (RFC 6585 §5)."""

    status = 431


class Inbox:
    """Bytes that have arrived and were not used yet. Holds at most one read above what a request still needs."""

    __slots__ = ("_at", "_checked", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._checked = 0  # how far an unfinished head is known to be clean

    def __len__(self) -> int:
        return len(self._data) - self._at

    @property
    def begun(self) -> bool:
        """Whether a request has begun; a lone empty line is none."""
        return len(self) > 2 or bool(self._data[self._at :].strip(b"\r\n"))

    def feed(self, data: bytes) -> None:
        if self._at < len(self._data):
            data = self._data[self._at :] + data
            self._checked = max(0, self._checked - self._at)
        else:
            self._checked = 0
        self._data, self._at = data, 0

    def head(self) -> Head | None:
        """The next request's head, or None until it is whole. Raises: Malformed, HeadTooLarge."""
        data, at = self._data, self._at
        if data.startswith(b"\r\n", at):
            at += 2  # one empty line before a request is tolerated (RFC 9112 §2.2)
        end = data.find(b"\r\n\r\n", max(at, self._checked - 3))
        if end < 0:
            self._check_unfinished(at)
            return None
        if end + 4 - at > HEAD_BYTES_MAX:
            raise HeadTooLarge(f"The head is over {HEAD_BYTES_MAX} bytes")
        raw = data[at : end + 4]
        self._skip_to(end + 4)
        return parse_head(raw)

    def take(self, most: int) -> bytes:
        """Up to `most` bytes, b"" when there are none."""
        piece = self._data[self._at : self._at + most]
        self._skip_to(self._at + len(piece))
        return piece

    def line(self, most: int) -> bytes | None:
        """Up to the next CR LF, without it; None until it is there. Raises: Malformed for a bare CR or LF, or over `most`."""
        end = self._data.find(b"\n", self._at, self._at + most + 2)
        if end < 0:
            if len(self) >= most + 2:
                raise Malformed("line_too_long", "A line of the chunked body is too long")
            return None
        line = self._data[self._at : end]
        if not line.endswith(b"\r") or line.find(b"\r") != len(line) - 1:
            raise Malformed("bare_line_end", "A line of the chunked body does not end with CR LF")
        self._skip_to(end + 1)
        return line[:-1]

    def _skip_to(self, at: int) -> None:
        self._at = at
        self._checked = at
        if at == len(self._data):
            self._data, self._at, self._checked = b"", 0, 0

    def _check_unfinished(self, at: int) -> None:
        """Refuse early: a client that ends lines with LF alone would else wait for its deadline."""
        data = self._data
        new = max(at, self._checked - 1)
        if len(data) - at > HEAD_BYTES_MAX:
            raise HeadTooLarge(f"The head is over {HEAD_BYTES_MAX} bytes")
        before = data[new - 1 : new] if new > at else b""
        if before == b"\n":
            before = b""  # it was checked with the CR in front of it, which is not looked at again
        check_characters(data[new:], before=before)
        self._checked = len(data)


def check_characters(raw: bytes, *, before: bytes = b"") -> None:
    """No control characters, no bare CR or LF, no folded line. `before` is the byte in front of `raw`; a CR may be its last."""
    controls = raw.translate(None, PLAIN)
    if not controls:
        return
    if controls != b"\r\n" * raw.count(b"\r\n"):
        if controls.translate(None, b"\r\n"):
            raise Malformed("control_character", "The head has a control character")
        if _BARE.search(before + raw):
            raise Malformed("bare_line_end", "A line of the head does not end with CR LF")
    if b"\n " in raw or b"\n\t" in raw:
        raise Malformed("folded_line", "Folded header lines are not accepted")


class _Headers:
    """Where llhttp's callbacks put what it reads."""

    __slots__ = ("found", "repeated")

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        self.repeated = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.strip(b" \t")
        if name in self.found:
            if name in _ONCE:
                self.repeated = self.repeated or name
            value = self.found[name] + (b"; " if name == b"cookie" else b", ") + value
        self.found[name] = value


def parse_head(raw: bytes) -> Head:
    """One request's head from its bytes up to and including the empty line.

    Raises: Malformed, HeadTooLarge; MethodNotAllowed for CONNECT, behind which a tunnel's bytes may follow at once.
    """
    check_characters(raw)
    if raw.count(b"\r\n") - 2 > HEADERS_MAX:
        raise HeadTooLarge(f"There are more than {HEADERS_MAX} headers")
    match = _REQUEST_LINE.fullmatch(raw, 0, raw.find(b"\r\n"))
    if match is None:
        raise _bad_request_line(raw)
    method, target, minor = match.groups()
    if method == b"CONNECT":
        raise MethodNotAllowed("CONNECT is for proxies, which this server is none of")
    headers = _headers(raw)
    version = "1.1" if minor == b"1" else "1.0"
    path, query = _target(method, target)
    _check_host(headers, version, target)
    words = _words(headers.get(b"connection", b""))
    return Head(
        method.decode("ascii"),
        path,
        query,
        headers,
        version,
        _length(headers, version),
        b"close" not in words and (version == "1.1" or b"keep-alive" in words),
        _expects(headers, version),
    )


def _headers(raw: bytes) -> dict[bytes, bytes]:
    sink = _Headers()
    parser = httptools.HttpRequestParser(sink)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # ours to decide: an upgrade that is not taken is an ordinary request
    except httptools.HttpParserInvalidMethodError:
        raise Malformed("method", "There is no such HTTP method") from None
    except httptools.HttpParserInvalidURLError:
        raise Malformed("target", "The request target is not valid") from None
    except httptools.HttpParserError as error:
        raise _header_problem(str(error)) from None
    if sink.repeated:
        name = sink.repeated.decode("ascii")
        raise Malformed("repeated_header", f"The header {name} is there more than once")
    return sink.found


def _header_problem(said: str) -> Malformed:
    """llhttp's sentence under our names. It finds header tokens and framing; everything else was checked before."""
    if "Content-Length" in said and "Transfer-Encoding" in said:
        return Malformed("length_and_chunked", "Content-Length and Transfer-Encoding exclude each other")
    if "Content-Length" in said:
        return Malformed("content_length", "Content-Length must be one number")
    if "Transfer-Encoding" in said:
        return Malformed("transfer_encoding", "The only accepted Transfer-Encoding is chunked")
    return Malformed("header", "A header line is not valid")


def _bad_request_line(raw: bytes) -> Malformed:
    line = raw[: raw.find(b"\r\n")]
    if re.search(rb" HTTP/[0-9.]+$", line) and not re.search(rb" HTTP/1\.[01]$", line):
        return Malformed("http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here")
    return Malformed("request_line", "The request line is not valid")


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Path and query of origin-form, absolute-form and asterisk-form (RFC 9112 §3.2)."""
    if b"#" in target:
        raise Malformed("target", "A request target has no fragment")
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            if target == b"*" and method == b"OPTIONS":
                return b"*", b""
            raise Malformed("target", "The request target is not valid")
        rest = absolute[2] or b"/"
        target = rest if rest.startswith(b"/") else b"/" + rest
    path, _, query = target.partition(b"?")
    return path, query


def _check_host(headers: dict[bytes, bytes], version: str, target: bytes) -> None:
    """A target that names its host must name the same one: RFC 9112 §3.2.2 lets it win, and others in front may read `Host`."""
    host = headers.get(b"host")
    if host is None:
        if version == "1.1":
            raise Malformed("host", "The Host header is missing")
        return
    if not _HOST.fullmatch(host):
        raise Malformed("host", "The Host header is not valid")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None and _without_port(absolute[1]) != _without_port(host):
        raise Malformed("host", "The request target and the Host header name different hosts")


def _without_port(host: bytes) -> bytes:
    """In lower case and without the port that it would have anyway; we speak plain HTTP, what is in front may speak TLS."""
    return host.lower().removesuffix(b":80").removesuffix(b":443")


def _length(headers: dict[bytes, bytes], version: str) -> int | None:
    coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise Malformed("length_and_chunked", "Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0" or coding.lower() != b"chunked":
            raise Malformed("transfer_encoding", "The only accepted Transfer-Encoding is chunked, in HTTP/1.1")
        return None
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 18:
        raise Malformed("content_length", "Content-Length must be one number")
    return int(length)


def _expects(headers: dict[bytes, bytes], version: str) -> bool:
    expect = headers.get(b"expect")
    if expect is None or version == "1.0":
        return False
    if expect.lower() != b"100-continue":
        raise Malformed("expect", "The only accepted Expect is 100-continue")
    return True


def _words(value: bytes) -> list[bytes]:
    return [word.strip(b" \t") for word in value.lower().split(b",")] if value else []
