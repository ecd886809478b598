"""The ASGI application: under our front, and alone under hypercorn's trio worker, with the same answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from structlog.testing import capture_logs
from tests.server.front_kit import FrontWorld, Received, Table, authenticate, open_front, request
from tests.server.socket_kit import Clock, Ids
from trio.testing import MockClock

from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.exchange import Exchange
from secureconnect.server.router import Router
from secureconnect.server.web import make_app, shipped_files
from secureconnect.testing.socket_client import KEY

BODY_BYTES_MAX = 100_000


def exchange_of(table: Table) -> Exchange:
    return Exchange(Router(table.rows()), Dispatcher(), authenticate=authenticate, clock=Clock(), ids=Ids())


@asynccontextmanager
async def open_pages() -> AsyncIterator[FrontWorld]:
    """The front with our own pages."""
    app = make_app(exchange_of(Table()), body_bytes_max=BODY_BYTES_MAX)
    async with open_front(web=app) as world:
        yield world
        assert world.front.unexpected == 0


@asynccontextmanager
async def open_hypercorn() -> AsyncIterator[str]:
    """The application alone, served by hypercorn's trio worker on a free port; gives the URL."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1
    config.loglevel = "ERROR"
    app = make_app(exchange_of(Table()), body_bytes_max=BODY_BYTES_MAX)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
        with trio.fail_after(20):
            yield url
        stop.set()
        nursery.cancel_scope.deadline = trio.current_time() + 5


# -- pages under the front


async def test_the_web_client_and_the_docs_are_served_with_types_and_guards(autojump_clock: MockClock) -> None:
    async with open_pages() as world:
        client = world.connect()
        for path, kind in (
            ("/", "text/html"),
            ("/index.html", "text/html"),
            ("/docs", "text/html"),
            ("/docs.js", "text/javascript"),
            ("/docs.css", "text/css"),
            ("/icon.svg", "image/svg+xml"),
        ):
            got = await client.ask(request(f"GET {path}", {"X-Request-ID": "mine"}))
            assert (got.status, got.headers["content-type"].partition(";")[0]) == (200, kind)
            assert len(got.body) > 100
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["x-frame-options"] == "DENY"
            assert "default-src 'self'" in got.headers["content-security-policy"]
            assert got.headers["x-request-id"] == "mine"


async def test_a_page_that_is_known_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with open_pages() as world:
        client = world.connect()
        tag = (await client.ask(request("GET /"))).headers["etag"]
        known = await client.ask(request("GET /", {"If-None-Match": f'"other", W/{tag}'}))
        assert (known.status, known.body, known.headers["etag"]) == (304, b"", tag)
        assert (await client.ask(request("GET /", {"If-None-Match": "*"}))).status == 304  # whatever there is
        assert (await client.ask(request("GET /", {"If-None-Match": '"other"'}))).status == 200
        head = await client.ask(request("HEAD /"))
        assert (head.status, int(head.headers["content-length"]) > 100) == (200, True)
        assert (await client.ask(request("GET /"))).status == 200


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/__init__.py", "/../__init__.py", "/..%2f__init__.py", "/%2e%2e/app.py", "/etc/passwd", "//etc/passwd",
     "/index.html/", "/static/index.html", "/%00", "/index.html%00.js", "/a%FF"],
)  # fmt: skip
async def test_nothing_else_of_the_disk_can_be_reached(path: str, autojump_clock: MockClock) -> None:
    async with open_pages() as world:
        got = await world.connect().ask(request(f"GET {path}"))
    assert got.status in (400, 404)
    assert got.json["success"] is False


def test_pages_need_nothing_from_elsewhere() -> None:
    """No CDN: the docs work on a machine without the internet. (A namespace is a name, not an address.)"""
    for path, file in shipped_files().items():
        text = file.body.decode().replace("http://www.w3.org/", "")
        assert "https://" not in text, path
        assert "http://" not in text, path


async def test_other_methods_on_pages_are_refused_in_the_envelope(autojump_clock: MockClock) -> None:
    async with open_pages() as world:
        client = world.connect()
        for method, status in (("POST", 404), ("OPTIONS", 404), ("TRACE", 405), ("PROPFIND", 405)):
            got = await client.ask(request(f"{method} /"))
            assert (got.status, got.json["success"]) == (status, False)


# -- alone under hypercorn


async def test_operations_answer_alike_through_asgi() -> None:
    async with open_hypercorn() as url, httpx.AsyncClient(base_url=url) as client:
        made = await client.post("/v1/echo", json={"text": "é", "n": 2}, headers={"X-Request-ID": "mine"})
        assert (made.status_code, made.json()["data"]) == (200, {"text": "é", "n": 2})
        assert made.json()["meta"]["request_id"] == made.headers["x-request-id"] == "mine"
        assert (made.headers["vary"], made.headers["cache-control"]) == ("Origin", "no-store")
        auth = {"Authorization": "Bearer alice", "Idempotency-Key": "k"}
        changed = await client.patch("/v1/things/a%2Fb?limit=3", json={"text": "x"}, headers=auth)
        assert changed.json()["data"] == {"id": "a/b", "text": "x", "limit": 3, "tags": [], "key": "k", "user": "alice"}
        assert (await client.post("/v1/things", json={"text": "x"})).status_code == 201
        removed = await client.delete("/v1/things/a", headers=auth)
        assert (removed.status_code, removed.content) == (204, b"")
        assert (await client.get("/livez")).json() == {"status": "alive"}
        head = await client.head("/livez")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "18")


async def test_refusals_answer_alike_through_asgi() -> None:
    async with open_hypercorn() as url, httpx.AsyncClient(base_url=url) as client:
        with capture_logs():
            answers = [
                await client.get("/v1/things/a"),
                await client.get("/v1/nothing"),
                await client.put("/v1/echo", json={}),
                await client.post("/v1/echo", content=b"[]"),
                await client.post("/v1/echo", content=b"{}"),
                await client.post("/v1/echo", content=b"x", headers={"Content-Type": "text/plain"}),
                await client.post("/v1/echo", content=b"x" * (BODY_BYTES_MAX + 1)),
                await client.post("/v1/echo", json={"text": ""}, headers={"Origin": "https://evil.example"}),
                await client.request("TRACE", "/v1/echo"),
                await client.get("/v1/boom"),
            ]
        assert [answer.status_code for answer in answers] == [401, 404, 405, 400, 400, 400, 413, 403, 405, 500]
        assert all(answer.json()["success"] is False and answer.headers["x-request-id"] for answer in answers)
        assert answers[2].headers["allow"] == "POST, OPTIONS"
        assert answers[8].headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


async def test_a_body_without_a_length_is_limited_too() -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 10_000
        yield b'{"text":"x"}'

    async with open_hypercorn() as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/echo", content=pieces(9))).json()["data"]["text"] == "x"
        assert (await client.post("/v1/echo", content=pieces(10))).status_code == 413


async def test_pages_and_preflights_are_served_by_asgi_alone() -> None:
    async with open_hypercorn() as url, httpx.AsyncClient(base_url=url) as client:
        page = await client.get("/")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert (await client.get("/", headers={"If-None-Match": page.headers["etag"]})).status_code == 304
        asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "PATCH"}
        preflight = await client.options("/v1/things/a", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "http://localhost:3000")


@pytest.mark.parametrize("path", ["/", "/v1/ws", "/anything/else"])
async def test_sockets_over_asgi_are_refused_before_the_upgrade(path: str) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
    async with open_hypercorn() as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get(path, headers=upgrade)).status_code == 501


async def test_both_faces_give_the_same_bytes(autojump_clock: MockClock) -> None:
    """The front's own way and the way through the application end in one exchange; only ids and dates may differ."""

    def told(got: Received) -> tuple[int, object, object]:
        return got.status, got.json.get("data"), got.json.get("error")

    asked = [
        request("POST /v1/echo", body=b'{"text":"x"}'),
        request("POST /v1/echo", body=b"{}"),
        request("GET /v1/things/a", {"Authorization": "Bearer alice"}),
        request("GET /v1/things/a"),
        request("DELETE /v1/nothing"),
        request("PUT /v1/things/a"),
    ]
    through = make_app(exchange_of(Table()))
    async with open_front() as straight, open_front(web=through) as around:
        around.exchange.begin = lambda head, peer: None  # type: ignore[method-assign]  # every request is the application's
        for raw in asked:
            moved = raw.replace(b" /v1", b" /%761", 1)  # not below the prefix as it stands there: it goes to the application
            assert told(await straight.connect().ask(raw)) == told(await around.connect().ask(moved))
