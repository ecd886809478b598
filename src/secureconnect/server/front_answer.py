"""Answers as bytes: status line, standing headers, body, in one piece where the whole is known."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus

from secureconnect.ports import Clock
from secureconnect.server.message import API_HEADERS, Reply

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_API = "".join(f"{name}: {value}\r\n" for name, value in API_HEADERS.items()).encode()
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SERVER = b"secureconnect"


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def http_date(seconds: int) -> str:
    """IMF-fixdate (RFC 9110 §5.6.7), whatever the locale."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} GMT"


class Writer:
    """Makes answers' bytes; remembers the header lines that stay the same for a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._standing = b""

    def standing(self) -> bytes:
        """`Server` and `Date`."""
        second = self._clock.now_us() // 1_000_000
        if second != self._second:
            self._second = second
            self._standing = b"Server: %b\r\nDate: %b\r\n" % (SERVER, http_date(second).encode("ascii"))
        return self._standing

    def answer(self, reply: Reply, *, version: str, keep: bool, head_only: bool = False) -> bytes:
        """A whole answer. `keep`: the connection goes on after it."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in reply.headers.items()])
        length = b"" if reply.status in (204, 304) else b"Content-Length: %d\r\n" % len(reply.body)
        return b"".join(
            (
                status_line(reply.status),
                self.standing(),
                _API,
                lines.encode("latin-1", "replace"),
                length,
                persistence(version, keep=keep),
                b"\r\n",
                b"" if head_only else reply.body,
            )
        )


def persistence(version: str, *, keep: bool) -> bytes:
    """The `Connection` line, where the version's default does not say it (RFC 9112 §9.3)."""
    if not keep:
        return b"Connection: close\r\n"
    return b"" if version == "1.1" else b"Connection: keep-alive\r\n"


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as lines; whoever gives them has checked that none ends its line."""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)
