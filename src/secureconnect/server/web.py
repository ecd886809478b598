"""The ASGI application: the web client's files, the docs page, and every operation of the table through the same exchange.

It is complete by itself: our front mounts it for pages, hypercorn's trio worker can run it alone (`secureconnect.asgi`), and
anybody can mount it. Sockets are the native gateway's; over ASGI they are refused.
"""

from __future__ import annotations

import hashlib
import mimetypes
from importlib import resources
from typing import Final

import msgspec
from quart import Request, Response, request, websocket
from quart_trio import QuartTrio

from secureconnect.errors import TooLarge
from secureconnect.server.exchange import Call, Exchange
from secureconnect.server.message import Head, Reply

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
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
            return await _operation(exchange, begun)
        if begun is not None:
            return _response(begun)
        found = files.get("/" + path) if head.method in ("GET", "HEAD") else None
        if found is None:
            return _response(exchange.nobody(exchange.standing(head.headers)))
        return _page(found, head)

    @app.websocket("/<path:path>")
    async def no_sockets(path: str) -> tuple[str, int]:
        await websocket.close(1013, "use the native gateway")
        return "", 501

    return app


async def _operation(exchange: Exchange, call: Call) -> Response:
    try:
        body = await request.get_data(as_text=False)
    except Exception as error:
        if getattr(error, "code", None) == 413:
            return _response(exchange.refuse(TooLarge("The body is too large"), call.headers))
        raise
    assert isinstance(body, bytes)
    return _response(await exchange.run(call, body))


def _head(asked: Request) -> Head:
    headers: dict[bytes, bytes] = {}
    for name, value in asked.headers:
        key, given = name.lower().encode("latin-1"), value.encode("latin-1")
        headers[key] = headers[key] + b", " + given if key in headers else given
    length = asked.content_length
    raw_path = asked.scope.get("raw_path") or asked.path.encode()
    return Head(
        method=asked.method,
        path=bytes(raw_path).partition(b"?")[0],
        query=asked.query_string if isinstance(asked.query_string, bytes) else asked.query_string.encode(),
        headers=headers,
        version=asked.http_version,
        length=length if length is not None else (None if b"transfer-encoding" in headers else 0),
    )


def _peer(asked: Request) -> str:
    client = asked.scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""


def _response(reply: Reply) -> Response:
    response = Response(reply.body, status=reply.status)
    response.headers.clear()
    for name, value in reply.headers.items():
        response.headers[name] = value
    response.headers["Content-Length"] = str(len(reply.body))
    return response


def _page(found: File, head: Head) -> Response:
    is_known = found.etag.encode() in head.headers.get(b"if-none-match", b"")
    reply = Reply(
        304 if is_known else 200,
        b"" if is_known else found.body,
        {**PAGE_HEADERS, "ETag": found.etag, "Content-Type": found.content_type},
    )
    return _response(reply)
