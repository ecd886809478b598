"""The WebSocket opening handshake (RFC 6455 §4.2), pure: is this request a good one, whose token does it bring, what to answer.

The front has parsed the head already; this decides and builds bytes. A refusal is an ordinary HTTP answer with the envelope, so
that a client sees the same error words before the upgrade as after it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from secureconnect.errors import BadRequest, Forbidden, MethodNotAllowed, NotAuthenticated, SecureConnectError
from secureconnect.ids import RequestId
from secureconnect.server.dispatch import failure
from secureconnect.server.message import API_HEADERS
from secureconnect.server.origins import Origins
from secureconnect.server.wire import http_body

SUBPROTOCOL = "secureconnect.v1"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What is kept of `X-Request-ID` (interface.md §9); anything else is replaced."""


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """A request head. Header names are lower case, repeated ones joined by ", "; `http_version` is `1.0` or `1.1`."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer: str
    http_version: str


class UpgradeRequired(BadRequest):
    """This address speaks WebSocket, version 13"""

    status: ClassVar[int] = 426


def check(request: HandshakeRequest, origins: Origins) -> None:
    """Whether this is a good handshake, from a page that may open sockets here.

    A request without `Origin` comes from no browser and is let in: its token decides.

    Raises: MethodNotAllowed, UpgradeRequired, BadRequest naming the header, Forbidden (a foreign origin).
    """
    headers = request.headers
    if request.method != "GET":
        raise MethodNotAllowed("A WebSocket handshake is a GET request")
    if request.http_version == "1.0" or not (_has(headers, "connection", "upgrade") and _has(headers, "upgrade", "websocket")):
        raise UpgradeRequired
    if headers.get("sec-websocket-version", "").strip() != "13":
        raise UpgradeRequired("Only version 13 of the WebSocket protocol is spoken here")
    if not _is_key(headers.get("sec-websocket-key", "")):
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64", details={"field": "Sec-WebSocket-Key"})
    origin = headers.get("origin")
    if origin is not None and not origins.allows(origin, headers.get("host", "")):
        raise Forbidden("This origin may not open sockets here; ORIGINS names those that may", details={"field": "Origin"})


def bearer(request: HandshakeRequest) -> str | None:
    """The access token in header or query, in this order of trust; None when there is none and the first frame must bring it.

    Raises: NotAuthenticated for an Authorization header of another scheme.
    """
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise NotAuthenticated("Authorization must be: Bearer <access token>")
        return token.strip()
    return request.query.get("token", request.query.get("access_token"))


def request_id_of(request: HandshakeRequest, fresh: str) -> RequestId:
    """The caller's own id where it is a good one, else `fresh`."""
    given = request.headers.get("x-request-id", "")
    return RequestId(given if _REQUEST_ID.fullmatch(given) else fresh)


def acceptance(request: HandshakeRequest, request_id: RequestId) -> bytes:
    """The head of `101 Switching Protocols`. Extensions are not negotiated."""
    digest = hashlib.sha1(request.headers["sec-websocket-key"].strip().encode() + _MAGIC, usedforsecurity=False).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        f"X-Request-ID: {request_id}",
    ]
    if _has(request.headers, "sec-websocket-protocol", SUBPROTOCOL):
        lines.append(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def refusal(error: SecureConnectError, request_id: RequestId, now_us: int) -> bytes:
    """The whole HTTP answer that refuses; the connection is closed after it."""
    response = failure(error)
    body = http_body(response, request_id, now_us)
    headers = {
        **API_HEADERS,
        "Content-Type": response.content_type,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "X-Request-ID": request_id,
        **response.headers,
    }
    if response.status == UpgradeRequired.status:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade, close", "Sec-WebSocket-Version": "13"}
    if response.status == MethodNotAllowed.status:
        headers["Allow"] = "GET"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n{lines}\r\n".encode() + body


def _has(headers: Mapping[str, str], name: str, word: str) -> bool:
    return any(part.strip().lower() == word for part in headers.get(name, "").split(","))


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
