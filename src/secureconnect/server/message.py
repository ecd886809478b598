"""An HTTP request and an HTTP answer as values, whatever read or will write their bytes: our front, or an ASGI server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec

from secureconnect.errors import RequestTimeout

Headers = Mapping[bytes, bytes]
"""Lower-case names; values without surrounding blanks; repeated ones joined (by `, `; cookies by `; `)."""


def joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header lines as they came, in the form above."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        key, given = name.lower(), value.strip(b" \t")
        if key in headers:
            given = headers[key] + (b"; " if key == b"cookie" else b", ") + given
        headers[key] = given
    return headers


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a request says before its body.

    `path` and `query` are raw (percent-encoded); `query` is without the question mark. `length` None: the body is chunked.
    `keep_alive`: the peer wants to go on after the answer.
    """

    method: str
    path: bytes
    query: bytes
    headers: Headers
    version: str = "1.1"
    length: int | None = 0
    keep_alive: bool = True
    expects_continue: bool = False


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole answer. `headers` lack what only the connection knows: length, date, connection."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class SlowRequest(RequestTimeout):
    """The request did not arrive within its deadline"""

    status: ClassVar[int] = 408


API_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Origin",
}
"""On every answer of the API (contract.md §5.7); pages have their own. Answers carry tokens and messages: nobody stores them."""
