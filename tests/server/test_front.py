"""The port in memory: requests and answers, their order and their bounds, under virtual time."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from tests.server.front_kit import Ended, HttpClient, open_front, request, transport_of
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.features.auth.model import Identity
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.front_connection import AHEAD_BYTES_MAX, HALF_CLOSED_S, Connection, FrontLimits
from secureconnect.server.front_parser import Inbox
from secureconnect.server.websocket_handshake import HandshakeRequest

ECHO = b'{"text":"hello","n":5}'


def echo(body: bytes = ECHO, **headers: str) -> bytes:
    return request("POST /v1/echo", {name.replace("_", "-"): value for name, value in headers.items()}, body)


# -- one request


async def test_an_operation_is_answered_in_the_envelope_with_its_id(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        got = await world.connect().ask(echo(X_Request_ID="abc-1.2_3"))
    assert got.status == 200
    assert got.data == {"text": "hello", "n": 5}
    assert got.json["success"] is True
    assert got.json["meta"]["request_id"] == got.headers["x-request-id"] == "abc-1.2_3"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["date"] == "Fri, 09 Jan 2026 23:06:40 GMT"
    assert got.headers["server"] == "secureconnect"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["vary"] == "Origin"
    assert "connection" not in got.headers


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a/b", "é"])
async def test_an_odd_request_id_is_replaced(given: str, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        got = await world.connect().ask(request("GET /livez", {"X-Request-ID": given}))
    assert len(got.headers["x-request-id"]) == 36


async def test_a_good_trace_is_returned_untouched_and_a_bad_one_is_not(autojump_clock: MockClock) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with open_front() as world:
        client = world.connect()
        assert (await client.ask(request(headers={"traceparent": good}))).headers["traceparent"] == good
        assert "traceparent" not in (await client.ask(request(headers={"traceparent": good.upper()}))).headers


async def test_a_field_may_stand_in_path_body_query_or_header_and_the_first_of_these_counts(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        change = "PATCH /v1/things/a%2Fb?"
        auth = {"Authorization": "bearer  alice", "Idempotency-Key": "from-header"}
        first = await client.ask(request(change + "text=q+%C3%A9&limit=7&tags=x&tags=y&id=no", auth, b""))
        second = await client.ask(request(change + "text=q&key=from-query", auth, b'{"text":"b","id":"no","more":1}'))
        third = await client.ask(request(change, auth, b'{"key":"from-body"}'))
    assert first.data == {
        "id": "a/b", "text": "q é", "limit": 7, "tags": ["x", "y"], "key": "from-header", "user": "alice",
    }  # fmt: skip
    assert (second.data["text"], second.data["id"], second.data["key"]) == ("b", "a/b", "from-query")
    assert third.data["key"] == "from-body"


@pytest.mark.parametrize(
    ("query", "field"), [("limit=x", "limit"), ("tags=x", "tags"), ("limit=1&limit=2", "limit"), ("key=a&key=b", "key")]
)
async def test_a_query_value_of_the_wrong_kind_names_its_field(query: str, field: str, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        got = await world.connect().ask(request(f"GET /v1/things/a?{query}", {"Authorization": "Bearer alice"}))
    assert (got.status, got.error["code"], got.error["details"]["field"]) == (400, "VALIDATION_ERROR", field)


@pytest.mark.parametrize("query", ["a=%", "a=%ff", "a=%00", "%zz=1", "&".join(["a=b"] * 129)])
async def test_a_query_that_does_not_decode_is_refused_and_the_connection_goes_on(query: str, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request(f"GET /v1/things/a?{query}", {"Authorization": "Bearer alice"}))
        assert (got.status, got.error["code"]) == (400, "VALIDATION_ERROR")
        assert (await client.ask(request())).status == 200


@pytest.mark.parametrize(
    "body",
    [b"[]", b"1", b"null", b'"x"', b"{", b"{} {}", b"\xff", b'{"text":"\xff"}', b'{"text":"\\ud800"}', b"[" * 100_000,
     b'{"a":' * 50_000, b'{"text":1e999}', b"\xef\xbb\xbf{}", b"{'text':'x'}", b'{"text":"' + b"\0" * 10 + b'"}', b" "],
)  # fmt: skip
async def test_a_body_that_is_no_json_object_is_refused_and_the_connection_goes_on(
    body: bytes, autojump_clock: MockClock
) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(echo(body))
        assert (got.status, got.error["code"], got.error["details"]["field"]) == (400, "VALIDATION_ERROR", "body")
        assert (await client.ask(request())).status == 200
        assert world.dispatcher.counters.unexpected == 0


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
        ("application/jsonx", 400),
        ("", 400),
    ],
)
async def test_a_body_is_json_by_its_type_or_has_none(content_type: str, status: int, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(echo(Content_Type=content_type))
        assert got.status == status
        assert status == 200 or got.reason == "media_type"
        assert (await client.ask(request("POST /v1/wait", {"Content-Type": "text/plain"}, b"{}"))).status == 400
        assert (
            await client.ask(request("DELETE /v1/things/a", {"Content-Type": "x", "Authorization": "Bearer a"}))
        ).status == 204


async def test_an_empty_body_is_an_empty_object_and_a_gets_body_is_dropped(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(echo(b""))
        assert (got.status, got.error["details"]["field"]) == (400, "text")
        assert (await client.ask(request("GET /livez", {"Content-Type": "text/plain"}, b"not json"))).status == 200
        assert (await client.ask(request())).status == 200


async def test_statuses_headers_and_meta_of_an_answer_arrive_and_no_value_ends_its_line(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request("POST /v1/things/", body=ECHO))
        assert (got.status, got.json["meta"]["stale"]) == (201, True)
        assert got.headers["x-made"] == "yesEvil: 1"
        old = await client.ask(request("POST /v1/old/things", body=ECHO))
        assert old.status == 201


async def test_no_content_has_no_body_and_no_length(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request("DELETE /v1/things/a", {"Authorization": "Bearer alice"}))
        assert (got.status, got.body) == (204, b"")
        assert "content-length" not in got.headers
        assert (await client.ask(request())).status == 200


async def test_head_is_the_gets_answer_without_its_body(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        get = await client.ask(request("GET /livez"))
        head = await client.ask(request("HEAD /livez"))
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(get.body)))
        missing = await client.ask(request("HEAD /v1/nothing"))
        assert missing.status == 404
        assert (await client.ask(request())).body == get.body


async def test_what_no_row_has_is_404_and_a_wrong_method_405_with_the_right_ones(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        for path in ("/v1/nothing", "/", "/v1", "/v1/../etc/passwd", "/v1/echo/x"):
            got = await client.ask(request(f"GET {path}"))
            assert (got.status, got.error["code"]) == (404, "NOT_FOUND")
        wrong = await client.ask(request("PUT /v1/things/a", body=b"{}"))
        assert (wrong.status, wrong.error["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert wrong.headers["allow"] == "GET, PATCH, DELETE, HEAD, OPTIONS"


async def test_a_bug_in_a_handler_is_one_500_that_shows_nothing_of_it(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        with capture_logs() as logs:
            got = await client.ask(request("GET /v1/boom"))
        assert (got.status, got.error) == (500, {"code": "INTERNAL_ERROR", "message": "Internal error", "retryable": False})
        assert [entry["event"] for entry in logs] == ["unexpected"]
        assert (await client.ask(request())).status == 200


async def test_a_request_over_its_deadline_is_504_and_the_connection_goes_on(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        with capture_logs():
            got = await client.ask(request("POST /v1/wait", body=b""))
        assert (trio.current_time(), got.status, got.error["code"]) == (30.0, 504, "REQUEST_TIMEOUT")
        assert (await client.ask(request())).status == 200


# -- who asks


@pytest.mark.parametrize(
    ("headers", "query", "code"),
    [
        ({}, "", "UNAUTHORIZED"),
        ({"Authorization": "Bearer"}, "", "UNAUTHORIZED"),
        ({"Authorization": "Basic YTpi"}, "", "UNAUTHORIZED"),
        ({"Authorization": "Bearer a b"}, "", "UNAUTHORIZED"),
        ({"Authorization": "Bearer 123"}, "", "UNAUTHORIZED"),
        ({"Authorization": "Bearer é"}, "", "UNAUTHORIZED"),
        ({"Authorization": "Bearer expired"}, "", "TOKEN_EXPIRED"),
        ({"Authorization": "Bearer expired"}, "?token=alice", "TOKEN_EXPIRED"),
        ({}, "?token=expired", "UNAUTHORIZED"),
        ({}, "?token=", "UNAUTHORIZED"),
    ],
)
async def test_without_a_good_token_it_is_401(headers: dict[str, str], query: str, code: str, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        got = await world.connect().ask(request(f"GET /v1/things/a{query}", headers))
    assert (got.status, got.error["code"], got.headers["www-authenticate"]) == (401, code, "Bearer")
    assert world.table.contexts == []


@pytest.mark.parametrize("query", ["token=bob", "access_token=bob", "limit=3&token=bob", "token=bob&access_token=carol"])
@pytest.mark.parametrize("line", ["GET /v1/things/a", "HEAD /v1/things/a", "PATCH /v1/things/a"])
async def test_a_token_in_the_query_opens_sockets_only(line: str, query: str, autojump_clock: MockClock) -> None:
    """A query stands in histories and in other servers' logs; browsers need it for sockets, whose handshake takes no header."""
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request(f"{line}?{query}"))
        assert got.status == 401
        if line.startswith("GET"):
            assert "Authorization: Bearer" in got.error["message"]
            assert "bob" not in got.body.decode()
            got = await client.ask(request(f"{line}?{query}", {"Authorization": "Bearer alice"}))
            assert (got.status, got.data["user"]) == (200, "alice")
    assert [context.me.user for context in world.table.contexts] == ["alice"] * line.startswith("GET")


async def test_a_public_operations_own_field_named_token_reaches_it_and_names_nobody(autojump_clock: MockClock) -> None:
    """As the links in mails have it."""
    seen: list[Identity | None] = []

    class Params(msgspec.Struct):
        token: str

    async def verify(context: Context, params: Params) -> str:
        seen.append(context.identity)
        return params.token

    row = Endpoint(name="verify", method="GET", path="/v1/verify", params=Params, call=verify, permission="public")
    async with open_front(rows=[row]) as world:
        client = world.connect()
        for token in ("alice", "expired", "0f3a"):
            assert (await client.ask(request(f"GET /v1/verify?token={token}"))).data == token
    assert seen == [None, None, None]


async def test_a_header_that_is_a_secret_is_not_taken_from_the_query(autojump_clock: MockClock) -> None:
    class Params(msgspec.Struct):
        authorization: str = ""

    async def figures(context: Context, params: Params) -> str:
        return params.authorization

    from_header = {"authorization": "authorization"}
    row = Endpoint(
        name="figures", method="GET", path="/figures", params=Params, call=figures, permission="public", headers=from_header
    )
    async with open_front(rows=[row]) as world:
        client = world.connect()
        asked = "GET /figures?authorization=Bearer%20secret"
        assert (await client.ask(request(asked))).data == ""
        assert (await client.ask(request(asked, {"Authorization": "Bearer word"}))).data == "Bearer word"


async def test_an_expired_token_does_not_keep_anybody_from_a_public_operation(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        assert (await client.ask(echo(Authorization="Bearer expired"))).status == 200
        assert (await client.ask(echo(Authorization="Bearer alice"))).status == 200
        assert [context.identity and context.identity.user for context in world.table.contexts] == [None, "alice"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("192.0.2.1:40000", None, "192.0.2.1:40000"),
        ("192.0.2.1:40000", "10.9.9.9", "192.0.2.1:40000"),
        ("10.0.0.1:5", None, "10.0.0.1:5"),
        ("10.0.0.1:5", "198.51.100.7", "198.51.100.7:0"),
        ("10.0.0.1:5", "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7:0"),
        ("10.0.0.1:5", "198.51.100.7:1234", "198.51.100.7:0"),
        ("10.0.0.1:5", "nonsense, 10.0.0.2", "10.0.0.2:0"),
        ("10.0.0.1:5", "", "10.0.0.1:5"),
        ("[fd00::1]:5", "2001:db8::7", "[2001:db8::7]:0"),
        ("[fd00::1]:5", "[2001:db8::7]:99", "[2001:db8::7]:0"),
        ("[::ffff:10.0.0.1]:5", "198.51.100.7", "198.51.100.7:0"),
        ("[::ffff:10.0.0.1]:5", "::ffff:198.51.100.7, ::ffff:10.0.0.2", "198.51.100.7:0"),
    ],
)
async def test_only_trusted_proxies_say_who_asks(peer: str, forwarded: str | None, seen: str, autojump_clock: MockClock) -> None:
    async with open_front(proxies=["10.0.0.0/8", "fd00::/8"]) as world:
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        await world.connect(peer=peer).ask(request("POST /v1/echo", {**headers, "User-Agent": "me/1"}, ECHO))
    assert [(context.peer, context.user_agent) for context in world.table.contexts] == [(seen, "me/1")]


# -- other sites' pages


async def test_a_preflight_allows_what_clients_send(autojump_clock: MockClock) -> None:
    async with open_front(origins=["https://chat.example"]) as world:
        asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "PATCH"}
        got = await world.connect().ask(request("OPTIONS /v1/things/a", asked))
    assert (got.status, got.body) == (204, b"")
    assert got.headers["access-control-allow-origin"] == "https://chat.example"
    assert got.headers["access-control-allow-credentials"] == "true"
    assert got.headers["access-control-max-age"] == "86400"
    assert got.headers["vary"] == "Origin"
    allowed = got.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "x-session-id", "x-request-id", "idempotency-key", "content-type"} <= set(allowed)
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(got.headers["access-control-allow-methods"].split(", "))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8080", 200),
        ("https://chat.example", 200),
        ("HTTPS://Chat.Example", 200),
        ("http://test", 200),
        ("https://test:443", 200),
        ("https://evil.example", 403),
        ("https://chat.example.evil", 403),
        ("http://localhost:3001", 403),
        ("http://test.evil", 403),
        ("null", 403),
        ("", 403),
        ("file://test", 403),
    ],
)
async def test_only_listed_origins_the_own_and_the_local_ones_may_call(
    origin: str, status: int, autojump_clock: MockClock
) -> None:
    async with open_front(origins=["https://chat.example/"]) as world:
        got = await world.connect().ask(echo(Origin=origin))
    assert got.status == status
    assert got.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    if status == 403:
        assert (got.error["code"], got.reason) == ("FORBIDDEN", "ORIGIN")


async def test_a_star_lets_every_origin_in(autojump_clock: MockClock) -> None:
    async with open_front(origins=["*"]) as world:
        got = await world.connect().ask(echo(Origin="https://any.example"))
    assert got.headers["access-control-allow-origin"] == "https://any.example"


async def test_an_allowed_page_can_read_a_refusal(autojump_clock: MockClock) -> None:
    limits = FrontLimits(body_bytes_max=10)
    async with open_front(limits=limits) as world:
        page = {"Origin": "http://localhost:3000"}
        for asked, status in (
            (request("GET /v1/things/a", page), 401),
            (request("GET /v1/nothing", page), 404),
            (request("PUT /v1/echo", page), 405),
            (request("POST /v1/echo", page, b"x" * 11), 413),
        ):
            got = await world.connect().ask(asked)
            assert (got.status, got.headers["access-control-allow-origin"]) == (status, page["Origin"])
            assert "X-Request-ID" in got.headers["access-control-expose-headers"]


async def test_options_without_a_page_lists_the_methods(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        assert (await client.ask(request("OPTIONS /v1/things/a"))).headers["allow"] == "GET, PATCH, DELETE, HEAD, OPTIONS"
        assert "POST" in (await client.ask(request("OPTIONS *"))).headers["allow"]
        assert (await client.ask(request("OPTIONS /v1/nothing"))).status == 404


@pytest.mark.parametrize("target", ["test:443", "[::1]:443", "/v1/echo", "http://test/", "*", "test"])
async def test_connect_is_405_and_nothing_behind_it_is_read(target: str, autojump_clock: MockClock) -> None:
    """What follows it may be a tunnel's bytes, not ours."""
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request(f"CONNECT {target}") + request())
        assert (got.status, got.error["code"], got.headers["connection"]) == (405, "METHOD_NOT_ALLOWED", "close")
        assert got.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert await client.end() == b""
        assert world.front.counters.requests == 0


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/echo", "POST, OPTIONS"),
        ("/v1/nothing", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("/page", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    ],
)
async def test_trace_is_405_everywhere_and_shows_nothing_of_the_request(path: str, allow: str, autojump_clock: MockClock) -> None:
    asked: list[object] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI's own types
        asked.append(scope)

    async with open_front(web=page) as world:
        client = world.connect()
        got = await client.ask(request(f"TRACE {path}", {"Cookie": "secret=1"}))
        assert (got.status, got.headers["allow"]) == (405, allow)
        assert "secret" not in got.body.decode()
        assert (await client.ask(request())).status == 200
    assert asked == []


# -- many requests on one connection


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect(most_per_send=1000)
        bodies = [b'{"text":"%d"}' % number for number in range(200)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"".join(echo(body) for body in bodies))
            answers = [await client.answer() for _ in bodies]
        assert [answer.data["text"] for answer in answers] == [str(number) for number in range(200)]


async def test_one_request_is_served_at_a_time_and_what_waits_is_bounded(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect(window_bytes=10_000)
        await client.send(request("POST /v1/wait", body=b""))
        with trio.move_on_after(20):
            await client.send(request("POST /v1/wait", body=b"") * 10_000)
        assert world.table.waiting == 1
        assert transport_of(client).unsent_bytes == 10_000  # it stopped reading


async def test_http_1_0_closes_unless_asked_to_keep(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        kept = await client.ask(request(headers={"Connection": "keep-alive"}, version="1.0"))
        assert kept.headers["connection"] == "keep-alive"
        closed = await client.ask(request(version="1.0"))
        assert (closed.status, closed.headers["connection"]) == (200, "close")
        assert await client.end() == b""


async def test_connection_close_is_honoured_and_later_requests_are_not_served(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request(headers={"Connection": "close"}) + request())
        assert got.headers["connection"] == "close"
        assert await client.end() == b""
        assert world.front.counters.requests == 1


async def test_a_peer_that_half_closes_still_gets_its_answers(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(echo() + echo())
        client.transport.send_eof()
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert await client.end() == b""
        await wait_all_tasks_blocked()
        assert world.front.connections == 0


# -- bodies


async def test_chunked_bodies_are_read_in_whatever_pieces(autojump_clock: MockClock) -> None:
    head = request("POST /v1/echo", {"Transfer-Encoding": "chunked"})
    raw = head + b'8\r\n{"text":\r\n8;x=y\r\n"hello"}\r\n0\r\nT: 1\r\n\r\n'
    async with open_front() as world:
        client = world.connect()
        for step in (1, 5, 1000):
            for at in range(0, len(raw), step):
                await client.send(raw[at : at + step])
                await wait_all_tasks_blocked()
            assert (await client.answer()).data["text"] == "hello"


def small_chunks(content: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % byte for byte in content) + b"0\r\n\r\n"


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/nothing", "/page"])
async def test_while_a_body_of_tiny_chunks_is_read_others_have_their_turns(path: str, autojump_clock: MockClock) -> None:
    """Read into an operation, dropped by a refusal, given to a page: each turn of reading is short."""

    async def page(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI's own types
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    raw = small_chunks(b'{"text":"' + b"x" * 9000 + b'"}')
    async with open_front(web=page) as world, trio.open_nursery() as nursery:
        client = world.connect(window_bytes=1 << 20)
        await wait_all_tasks_blocked()
        await client.send(request(f"POST {path}", {"Transfer-Encoding": "chunked"}) + raw)
        nursery.start_soon(others)
        got = await client.answer()
        nursery.cancel_scope.cancel()
    assert got.status == (404 if path == "/v1/nothing" else 200)
    assert "connection" not in got.headers
    assert turns >= 40


async def test_a_told_length_over_the_limit_is_413_at_once(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request("POST /v1/echo", {"Content-Length": str((1 << 20) + 1)}))
        assert (got.status, got.error["code"], got.headers["connection"]) == (413, "TOO_LARGE", "close")
        assert trio.current_time() == 0


async def test_a_body_of_exactly_the_limit_is_taken(autojump_clock: MockClock) -> None:
    size = 1 << 20
    body = b'{"text":"' + b"x" * (size - 11) + b'"}'
    async with open_front() as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, echo(body))
            got = await client.answer()
        assert (got.status, len(got.data["text"])) == (200, size - 11)


async def test_a_chunked_body_is_413_when_it_passes_the_limit_and_the_answer_survives_the_rest(
    autojump_clock: MockClock,
) -> None:
    async with open_front(limits=FrontLimits(body_bytes_max=1000)) as world:
        client = world.connect()
        await client.send(request("POST /v1/echo", {"Transfer-Encoding": "chunked"}))
        await client.send(b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n" + b"1f4\r\n" + b"x" * 500)
        got = await client.answer()
        assert (got.status, got.headers["connection"]) == (413, "close")
        assert await client.end() == b""


async def test_expect_gets_its_100_before_the_body_and_not_when_the_answer_is_no(autojump_clock: MockClock) -> None:
    expecting = {"Expect": "100-continue", "Content-Length": str(len(ECHO))}
    async with open_front() as world:
        client = world.connect()
        assert (await client.ask(request("POST /v1/echo", expecting))).status == 100
        assert (await client.ask(ECHO)).data["text"] == "hello"
        assert (await client.ask(request("POST /v1/echo", expecting) + ECHO)).status == 200  # it did not wait for us
        refused = await client.ask(request("PATCH /v1/things/a", expecting))
        assert (refused.status, refused.headers["connection"]) == (401, "close")
        large = await world.connect().ask(request("POST /v1/echo", {**expecting, "Content-Length": "2000000"}))
        assert large.status == 413


@pytest.mark.parametrize("coded", [False, True])
async def test_expect_is_answered_once_and_not_when_the_body_has_begun(coded: bool, autojump_clock: MockClock) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI's own types
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    framing = {"Transfer-Encoding": "chunked"} if coded else {"Content-Length": str(len(ECHO))}
    pieces = [b"%x\r\n" % len(ECHO), ECHO, b"\r\n", b"0\r\n\r\n"] if coded else [ECHO[:5], ECHO[5:9], ECHO[9:]]
    async with open_front(web=page) as world:
        for path in ("/page", "/v1/echo"):
            for begun in (False, True):
                client = world.connect()
                await client.send(request(f"POST {path}", {"Expect": "100-continue", **framing}) + pieces[0] * begun)
                if not begun:
                    assert (await client.answer()).status == 100
                for piece in pieces[begun:]:
                    await wait_all_tasks_blocked()
                    await client.send(piece)
                assert (await client.answer()).status == 200


async def test_an_early_refusal_drops_a_body_that_is_there_and_closes_on_one_that_is_not(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        assert (await client.ask(request("POST /v1/nothing", body=ECHO))).status == 404
        assert (await client.ask(request("PATCH /v1/things/a", body=ECHO))).status == 401
        cut = await client.ask(request("POST /v1/nothing", {"Content-Length": "100"}) + b"x")
        assert (cut.status, cut.headers["connection"]) == (404, "close")


# -- clocks


async def test_an_idle_connection_ends_silently_after_75_s(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        assert await client.end() == b""
        assert trio.current_time() == 75.0


async def test_between_two_requests_it_is_75_s_less_at_most_5(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        for _ in range(9):
            await client.ask(request())
            await trio.sleep(9)
        began_s = trio.current_time() - 9
        assert await client.end() == b""
        assert 70 <= trio.current_time() - began_s <= 75


async def test_half_a_head_is_408_ten_seconds_after_its_first_byte(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await trio.sleep(50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, request("GET /livez", {"A": "b" * 100}), 0.5)
            got = await client.answer()
            assert (trio.current_time(), got.status, got.error["code"]) == (60.0, 408, "REQUEST_TIMEOUT")
            assert got.error["details"] == {"stage": "head"}
            nursery.cancel_scope.cancel()
        assert await client.end() == b""


async def drip(client: HttpClient, data: bytes, pause_s: float) -> None:
    for byte in data:
        await client.send(bytes([byte]))
        await trio.sleep(pause_s)


async def test_a_body_without_progress_is_408_after_ten_seconds(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("POST /v1/echo", {"Content-Length": "10"}) + b"{")
        await trio.sleep(9)
        await client.send(b'"')
        got = await client.answer()
        assert (trio.current_time(), got.status, got.error["details"]) == (19.0, 408, {"stage": "body"})


async def test_a_body_that_only_drips_is_408_after_thirty_seconds(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:
            await client.send(request("POST /v1/echo", {"Content-Length": "100"}))
            nursery.start_soon(drip, client, b" " * 99, 1)
            got = await client.answer()
            assert (trio.current_time(), got.status) == (30.0, 408)
            nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_is_cut_off_after_ten_seconds(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect(window_bytes=1000)
        await client.send(request("GET /v1/big/a?limit=100000"))
        await trio.sleep(9.9)
        assert world.front.connections == 1
        await trio.sleep(0.2)
        assert world.front.connections == 0
        with pytest.raises(Ended):
            await client.answer()


async def test_a_slow_reader_with_progress_gets_its_whole_answer(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect(window_bytes=10_000)
        await client.send(request("GET /v1/big/a?limit=100000"))
        got = b""
        while len(got) < 100_000:
            await trio.sleep(9)
            piece = await client.transport.receive(10_000)
            assert piece, "it was cut off"
            got += piece
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert trio.current_time() > 80


async def test_a_peer_that_never_closes_after_our_last_word_is_cut_off_in_two_seconds(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.ask(request(headers={"Connection": "close"}))
        await trio.sleep(1.9)
        assert world.front.connections == 1
        await trio.sleep(0.2)
        assert world.front.connections == 0


async def test_a_peer_that_sends_for_ever_after_our_last_word_is_cut_off(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.ask(b"GET / HTTP/3.0\r\n\r\n")
        with pytest.raises(OSError, match="closed"):
            await client.send(b"x" * 10_000_000)
        assert trio.current_time() < 2


# -- polls


async def test_a_peer_that_leaves_cancels_its_poll(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("GET /v1/poll"))
        await wait_all_tasks_blocked()
        assert world.table.waiting == 1
        client.transport.abort()
        await trio.sleep(HALF_CLOSED_S + 0.1)
        assert (world.table.waiting, world.table.cancelled, world.front.connections) == (0, 1, 0)


async def test_a_peer_that_half_closes_gets_a_polls_answer_too_when_it_comes_soon(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("GET /v1/poll") + request())
        client.transport.send_eof()
        await trio.sleep(HALF_CLOSED_S - 0.1)
        world.table.gate.set()
        assert (await client.answer()).data == "through"
        assert (await client.answer()).json == {"status": "alive"}
        assert await client.end() == b""
        assert world.table.cancelled == 0


async def test_a_peer_that_resets_cancels_its_poll_at_once(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.ask(request())
        await client.send(request() + request("GET /v1/poll"))
        await wait_all_tasks_blocked()
        assert world.table.waiting == 1
        client.transport.abort()  # over an answer that it has not read
        await wait_all_tasks_blocked()
        assert (world.table.cancelled, world.front.connections, trio.current_time()) == (1, 0, 0)


async def test_an_ordinary_request_goes_on_without_its_peer(autojump_clock: MockClock) -> None:
    """What was asked is done; the answer finds nobody, and that is no error."""
    async with open_front() as world:
        client = world.connect()
        await client.send(request("POST /v1/wait", body=b""))
        await wait_all_tasks_blocked()
        client.transport.abort()
        await wait_all_tasks_blocked()
        assert world.table.waiting == 1
        world.table.gate.set()
        await wait_all_tasks_blocked()
        assert (world.table.cancelled, world.front.connections) == (0, 0)


async def test_what_arrives_during_a_poll_is_the_next_request(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("GET /v1/poll"))
        await wait_all_tasks_blocked()
        await client.send(echo()[:30])
        await wait_all_tasks_blocked()
        await client.send(echo()[30:])
        await wait_all_tasks_blocked()
        world.table.gate.set()
        assert (await client.answer()).data == "through"
        assert (await client.answer()).data["text"] == "hello"


async def test_a_poll_reads_ahead_only_so_far(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect(window_bytes=10_000)
        await client.send(request("GET /v1/poll"))
        with trio.move_on_after(20):
            await client.send(request() * 10_000)
        assert transport_of(client).unsent_bytes == 10_000
        world.table.gate.set()
        assert (await client.answer()).data == "through"
        answered = 0
        with trio.move_on_after(1):
            while (await client.answer()).status == 200:
                answered += 1
        assert 0 <= answered * len(request()) - AHEAD_BYTES_MAX < 30_000  # that, and what the window held


async def test_a_polls_deadline_is_its_wait_and_five_seconds(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        with capture_logs():
            got = await client.ask(request("GET /v1/poll?wait_s=50"))
        assert (trio.current_time(), got.status) == (55.0, 504)


# -- sockets


async def test_a_socket_path_leaves_http_with_the_bytes_behind_it(autojump_clock: MockClock) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "X-A": "1"}
    async with open_front() as world:
        client = world.connect(peer="192.0.2.9:7")
        await client.ask(request())  # also on a connection that was used before
        got = await client.ask(request("GET /v1/ws?token=a&x=1&x=2&y=%C3%A9", upgrade) + b"\x81\x00frames")
        assert got.status == 101
        ((asked, rest),) = world.door.taken
        assert (asked.method, asked.path, asked.query, asked.http_version) == ("GET", "/v1/ws", {"token": "a", "y": "é"}, "1.1")
        assert (asked.peer, asked.headers["upgrade"], asked.headers["x-a"]) == ("192.0.2.9:7", "websocket", "1")
        assert rest == b"\x81\x00frames"
        assert (world.front.connections, world.front.counters.upgrades) == (0, 1)


async def test_a_socket_keeps_nothing_of_its_request(autojump_clock: MockClock) -> None:
    """Ten thousand idle sockets would keep ten thousand heads."""

    def alive() -> Counter[str]:
        gc.collect()
        return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, (HandshakeRequest, Connection, Inbox)))

    async with open_front() as world:
        before = alive()  # other tests keep requests as their parameters
        client = world.connect()
        await client.ask(request("GET /v1/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}))
        world.door.taken.clear()
        await wait_all_tasks_blocked()
        assert alive() <= before
        client.transport.abort()


async def test_an_upgrade_with_a_body_is_refused(autojump_clock: MockClock) -> None:
    """Its body would become frames."""
    async with open_front() as world:
        got = await world.connect().ask(request("GET /v1/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}, b"\x81\x00"))
        assert (got.status, got.reason) == (400, "upgrade_with_body")
        assert world.door.taken == []


async def test_an_upgrade_elsewhere_is_an_ordinary_request(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        for kind in ("websocket", "h2c"):
            got = await world.connect().ask(request("GET /livez", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": kind}))
            assert got.status == 200


# -- too many, and the end


async def test_one_connection_too_many_is_told_so(autojump_clock: MockClock) -> None:
    async with open_front(limits=FrontLimits(connections_max=2)) as world:
        first, second = world.connect(), world.connect()
        await wait_all_tasks_blocked()
        with capture_logs() as logs:
            third, fourth = world.connect(), world.connect()
            await third.send(request())
            got = await third.answer()
            assert (await fourth.answer()).status == 503
        (line,) = logs  # one for each time of being full
        assert (line["event"], line["setting"]) == ("at_capacity", "SECURECONNECT_HTTP_CONNECTIONS_MAX")
        assert (got.status, got.error["code"], got.headers["connection"]) == (503, "SERVER_AT_CAPACITY", "close")
        assert got.headers["retry-after"] == "1"
        assert await third.end() == b""
        first.transport.abort()
        await wait_all_tasks_blocked()
        assert (await world.connect().ask(request())).status == 200
        assert (await second.ask(request())).status == 200
        assert world.front.counters.refused == 2
        assert world.exchange.refused == {"SERVER_AT_CAPACITY": 2}


async def test_sockets_are_not_among_the_connections_that_are_counted(autojump_clock: MockClock) -> None:
    async with open_front(limits=FrontLimits(connections_max=1)) as world:
        socket = world.connect()
        assert (await socket.ask(request("GET /v1/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}))).status == 101
        assert (await world.connect().ask(request(headers={"Connection": "close"}))).status == 200
        with capture_logs():
            assert (await world.connect().answer()).status == 503  # the one before has not closed yet
        assert world.door.is_serving == 1


async def test_draining_closes_who_is_idle_and_answers_who_is_served(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        idle, busy, late = world.connect(), world.connect(), world.connect()
        await idle.ask(request())
        await busy.send(request("POST /v1/wait", body=b""))
        await late.send(b"GET /livez HT")
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.front.drain)
            assert await idle.end() == b""
            assert (await late.ask(b"TP/1.1\r\nHost: test\r\n\r\n")).headers["connection"] == "close"
            world.table.gate.set()
            got = await busy.answer()
            assert (got.status, got.headers["connection"]) == (200, "close")
            busy.transport.abort()
            late.transport.abort()
        assert (world.front.connections, trio.current_time()) == (0, 0.0)


async def test_a_drain_that_begins_during_a_page_does_not_wait_for_its_connection_to_idle(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    async def page(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI's own types
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with open_front(web=page) as world:
        client = world.connect()
        await client.send(request("GET /page"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.front.drain)
            await wait_all_tasks_blocked()
            gate.set()
            assert (await client.answer()).body == b"ok"
            assert await client.end() == b""
            client.transport.abort()
        assert trio.current_time() < 1


async def test_a_drain_ends_what_waits_and_its_answer_is_the_connections_last(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("GET /v1/poll?wait_s=50"))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.front.drain)
            got = await client.answer()
            assert (got.data, got.headers["connection"]) == ("through", "close")
            assert await client.end() == b""
            client.transport.abort()
        assert trio.current_time() == 0


async def test_who_comes_while_it_drains_is_told_so_or_how_it_is_and_holds_nothing(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(request("POST /v1/wait", body=b""))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.front.drain)
            await wait_all_tasks_blocked()
            late, probe, silent = world.connect(), world.connect(), world.connect()
            await late.send(request("GET /v1/echo"))
            got = await late.answer()
            assert (got.status, got.error["code"], got.headers["retry-after"]) == (503, "SERVICE_UNAVAILABLE", "1")
            assert got.headers["connection"] == "close"
            assert await late.end() == b""
            await probe.send(request("GET /livez"))
            got = await probe.answer()
            assert (got.status, got.headers["connection"]) == (200, "close")
            for other in (late, probe, silent):
                other.transport.abort()
            assert (await client.answer()).data == "through"
            client.transport.abort()
        assert trio.current_time() == 0


async def test_draining_without_connections_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        await world.front.drain()


# -- bytes that are no request


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "control_character"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "bare_line_end"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http_version"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", "request_line"),
        (request() + b"GARBAGE\r\n\r\n", "request_line"),
        (request("POST /v1/nothing", {"Content-Length": "5", "Transfer-Encoding": "chunked"}), "length_and_chunked"),
    ],
)
async def test_bad_bytes_are_named_and_the_connection_closed(raw: bytes, reason: str, autojump_clock: MockClock) -> None:
    async with open_front() as world:
        client = world.connect()
        await client.send(raw)
        got = await client.answer()
        if got.status == 200:
            got = await client.answer()
        assert (got.status, got.error["code"], got.reason) == (400, "VALIDATION_ERROR", reason)
        assert got.headers["connection"] == "close"
        assert await client.end() == b""
        assert world.front.counters.malformed == {reason: 1}
        assert trio.current_time() <= 2  # nobody waits for a deadline to say so


async def test_a_request_smuggled_behind_a_refused_one_is_never_served(autojump_clock: MockClock) -> None:
    smuggled = request("GET /livez")
    async with open_front() as world:
        for head in (
            {"Content-Length": "4", "Transfer-Encoding": "chunked"},
            {"Transfer-Encoding": "chunked, identity"},
            {"Transfer-Encoding": "\x0bchunked", "Content-Length": "3"},
        ):
            client = world.connect()
            got = await client.ask(request("POST /v1/echo", head) + b"0\r\n\r\n" + smuggled)
            assert got.status == 400
            assert await client.end() == b""
        assert world.front.counters.requests == 0


async def test_a_head_that_is_too_large_is_431(autojump_clock: MockClock) -> None:
    async with open_front() as world:
        got = await world.connect().ask(request("GET /livez", {"A": "b" * 33_000}))
        assert (got.status, got.error["code"]) == (431, "TOO_LARGE")
        many = await world.connect().ask(request("GET /livez", {f"A{i}": "b" for i in range(101)}))
        assert many.status == 431
