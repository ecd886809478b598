"""The ASGI application: the web client's files, the docs page, and every operation of the table through the same exchange.

It is complete by itself: our front mounts it for pages, hypercorn's trio worker can run it alone (`secureconnect.asgi`), and
anybody can mount it. Sockets are the native gateway's; over ASGI they are refused before the upgrade, with 501.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from importlib import resources
from typing import Final

import msgspec
from quart import Request, Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout

from secureconnect.errors import MethodNotAllowed, SecureConnectError
from secureconnect.server.exchange import METHODS, Call, Exchange
from secureconnect.server.front_body import body_too_large
from secureconnect.server.message import API_HEADERS, Head, Reply, SlowRequest, joined
from secureconnect.server.origins import plain_host

PAGES: Final = {"/": "index.html", "/docs": "docs.html"}
SHIPPED: Final = (".html", ".css", ".js", ".svg")
PAGE_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=()",
    "Cache-Control": "no-cache",
}
"""Pages are asked for again each time and answered 304 while they are the same."""


class File(msgspec.Struct, frozen=True):
    """A file of the web client, read once at the start."""

    body: bytes
    content_type: str
    etag: str


def shipped_files() -> dict[str, File]:
    """Address -> file, for every file of the web client. Nothing else of the disk can be reached."""
    files = {}
    for entry in resources.files("secureconnect.web").iterdir():
        if entry.name.endswith(SHIPPED):
            body = entry.read_bytes()
            kind = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
            content_type = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
            files[f"/{entry.name}"] = File(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files | {path: files[f"/{name}"] for path, name in PAGES.items() if f"/{name}" in files}


def make_app(exchange: Exchange, *, body_bytes_max: int = 1 << 20) -> QuartTrio:
    """The application over one node's exchange."""
    app = QuartTrio("secureconnect", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = body_bytes_max
    files = shipped_files()

    @app.route("/", defaults={"path": ""}, methods=METHODS, provide_automatic_options=False)
    @app.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
    async def anything(path: str) -> Response:
        head = _head(request)
        begun = exchange.begin(head, _peer(request))
        if isinstance(begun, Call):
            return await _operation(exchange, begun, body_bytes_max)
        if begun is not None:
            return _response(begun)
        found = files.get("/" + path) if head.method in ("GET", "HEAD") else None
        if found is None:
            return _response(exchange.nobody(head.headers))
        return _page(found, head, exchange.standing(head.headers))

    @app.websocket("/", defaults={"path": ""})
    @app.websocket("/<path:path>")
    async def no_sockets(path: str) -> tuple[str, int]:
        return "Sockets are served by SecureConnect's own port, not over ASGI", 501

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> Response:
        """What Quart refuses by itself: a method nobody has, or an exception in here, which it has logged."""
        refusal = MethodNotAllowed() if error.code == 405 else SecureConnectError("Internal error")
        return _response(exchange.refuse(refusal, exchange.standing(_head(request).headers)))

    return app


async def _operation(exchange: Exchange, call: Call, body_bytes_max: int) -> Response:
    try:
        body = await request.get_data(as_text=False)
    except RequestEntityTooLarge:
        return _response(exchange.refuse(body_too_large(body_bytes_max), call.headers))
    except RequestTimeout:
        return _response(exchange.refuse(SlowRequest(details={"stage": "body"}), call.headers))
    assert isinstance(body, bytes)
    return _response(await exchange.run(call, body))


def _head(asked: Request) -> Head:
    headers = joined(asked.scope["headers"])
    path, query = asked.scope.get("raw_path") or asked.path.encode(), asked.scope["query_string"]
    length = headers.get(b"content-length")
    is_framed = asked.http_version < "2"  # later versions need no length for a body, so there may be one
    return Head(
        method=asked.method,
        path=bytes(path).partition(b"?")[0],
        query=bytes(query),
        headers=headers,
        version=asked.http_version,
        length=int(length) if length and length.isdigit() else (0 if is_framed and b"transfer-encoding" not in headers else None),
    )


def _peer(asked: Request) -> str:
    client = asked.scope.get("client")
    if not client:
        return ""
    host, port = plain_host(client[0]), client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _response(reply: Reply) -> Response:
    return _answer(reply.status, reply.body, {**API_HEADERS, **reply.headers})


def _page(found: File, head: Head, carried: Mapping[str, str]) -> Response:
    known = head.headers.get(b"if-none-match", b"")
    is_known = known == b"*" or found.etag.encode() in known
    headers = {**PAGE_HEADERS, "ETag": found.etag, "Content-Type": found.content_type, **carried}
    return _answer(304 if is_known else 200, b"" if is_known else found.body, headers)


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> Response:
    """Exactly these headers, and the length where the status has one; ASGI servers leave a HEAD's body out."""
    response = Response(body, status=status)
    response.headers.clear()
    response.headers.update(headers)
    if status not in (204, 304):
        response.headers["Content-Length"] = str(len(body))
    return response
