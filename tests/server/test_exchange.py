"""One request against the table, whatever carried it: what the head decides, what the body does, and bugs around dispatch."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
import trio
from structlog.testing import capture_logs
from tests.server.front_kit import Table, authenticate, open_front, request
from tests.server.socket_kit import Clock, Ids
from trio.testing import MockClock

from secureconnect.errors import BadRequest, Unavailable
from secureconnect.features.auth.model import Identity
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Answer, Context, Endpoint, NoParams
from secureconnect.server.exchange import Call, Exchange, read_object
from secureconnect.server.message import Head, Reply
from secureconnect.server.router import Router
from secureconnect.server.wire import Response


def exchange(table: Table | None = None) -> Exchange:
    return Exchange(Router((table or Table()).rows()), Dispatcher(), authenticate=authenticate, clock=Clock(), ids=Ids())


def head(line: str, headers: Mapping[str, str] | None = None, *, length: int | None = 0) -> Head:
    method, _, target = line.partition(" ")
    path, _, query = target.encode().partition(b"?")
    named = {name.lower().encode(): value.encode("latin-1") for name, value in {"Host": "test", **(headers or {})}.items()}
    return Head(method, path, query, named, length=length)


def word(reply: Reply) -> str:
    code: str = msgspec.json.decode(reply.body)["error"]["code"]
    return code


ALICE = {"Authorization": "Bearer alice"}
EVERY_METHOD = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


# -- bugs around dispatch


@pytest.mark.parametrize("kind", [ValueError, OSError, KeyError, AssertionError, TypeError, RecursionError])
async def test_a_bug_in_the_checking_of_a_token_is_one_500_and_the_connection_goes_on(
    kind: type[Exception], autojump_clock: MockClock
) -> None:
    """An OSError among them would else be taken for the connection's own."""

    def check(token: str) -> Identity:
        if token == "bug":
            raise kind("secret thing")
        return authenticate(token)

    async with open_front(check=check) as world:
        client = world.connect()
        for line, body in (("GET /v1/things/a", None), ("POST /v1/echo", b"{}")):
            with capture_logs() as logs:
                got = await client.ask(request(line, {"Authorization": "Bearer bug", "X-Request-ID": "mine"}, body))
            assert (got.status, got.error["code"], got.headers["x-request-id"]) == (500, "INTERNAL_ERROR", "mine")
            assert got.json["meta"]["request_id"] == "mine"
            assert "secret" not in got.body.decode()
            assert [(entry["event"], entry["request_id"]) for entry in logs] == [("unexpected", "mine")]
        assert world.front.unexpected == 2
        assert (await client.ask(request("GET /v1/things/a", ALICE))).status == 200


async def test_a_token_that_cannot_be_checked_now_is_told_as_what_it_is(autojump_clock: MockClock) -> None:
    def check(token: str) -> Identity:
        raise Unavailable("Revocations are not known yet", retry_after_s=2.0)

    async with open_front(check=check) as world:
        got = await world.connect().ask(request("GET /v1/things/a", ALICE))
        assert (got.status, got.headers["retry-after"], world.front.unexpected) == (503, "2", 0)


async def test_a_refusal_that_cannot_be_written_is_one_500(autojump_clock: MockClock) -> None:
    def check(token: str) -> Identity:
        raise BadRequest("odd", details={"odd": object()})

    async with open_front(check=check) as world:
        with capture_logs() as logs:
            got = await world.connect().ask(request("GET /v1/things/a", {**ALICE, "X-Request-ID": "mine"}))
        assert (got.status, got.error["code"], got.headers["x-request-id"], len(logs)) == (500, "INTERNAL_ERROR", "mine", 1)


@pytest.mark.parametrize("answer", [Answer(meta={"x": object()}), Answer(headers={"X": 5})])  # type: ignore[dict-item]  # a bug
async def test_an_answer_that_cannot_be_written_is_one_500(answer: Answer, autojump_clock: MockClock) -> None:
    async def call(context: Context, params: NoParams) -> Answer:
        return answer

    row = Endpoint(name="odd", method="GET", path="/v1/odd", params=NoParams, call=call, permission="public")
    poll = Endpoint(
        name="oddpoll", method="GET", path="/v1/oddpoll", params=NoParams, call=call, permission="public", deadline="poll"
    )
    async with open_front(rows=[row, poll]) as world:
        client = world.connect()
        for path in ("/v1/odd", "/v1/oddpoll"):
            with capture_logs() as logs:
                got = await client.ask(request(f"GET {path}", {"X-Request-ID": "mine"}))
            assert (got.status, got.error["code"], got.headers["x-request-id"]) == (500, "INTERNAL_ERROR", "mine")
            assert [entry["event"] for entry in logs] == ["unexpected"]


async def test_a_bug_in_who_observes_is_one_500(autojump_clock: MockClock) -> None:
    def observe(endpoint: Endpoint, context: Context, response: Response, seconds: float) -> None:
        raise ZeroDivisionError

    table = Table()
    asked = Exchange(Router(table.rows()), Dispatcher(observe=observe), authenticate=authenticate, clock=Clock(), ids=Ids())
    call = asked.begin(head("GET /livez"), "192.0.2.1:1")
    assert isinstance(call, Call)
    with capture_logs() as logs:
        reply = await asked.run(call, b"")
    assert (reply.status, word(reply), asked.unexpected, len(logs)) == (500, "INTERNAL_ERROR", 1, 1)


async def test_cancellation_is_no_bug(autojump_clock: MockClock) -> None:
    table = Table()
    asked = exchange(table)
    call = asked.begin(head("GET /v1/poll"), "192.0.2.1:1")
    assert isinstance(call, Call)
    with trio.move_on_after(1) as scope:
        await asked.run(call, b"")
    assert (scope.cancelled_caught, asked.unexpected) == (True, 0)


# -- what the head decides


@pytest.mark.parametrize(
    ("line", "headers", "status", "code"),
    [
        ("GET /v1/things/a", {}, 401, "UNAUTHORIZED"),
        ("GET /v1/things/a", {"Authorization": "Bearer expired"}, 401, "TOKEN_EXPIRED"),
        ("GET /v1/things/a", {"Authorization": "Basic YTpi"}, 401, "UNAUTHORIZED"),
        ("GET /v1/things/a?token=alice", {}, 401, "UNAUTHORIZED"),
        ("GET /v1/things/a", {**ALICE, "Origin": "https://evil.example"}, 403, "FORBIDDEN"),
        ("GET /v1/things/a", {**ALICE, "Origin": "null"}, 403, "FORBIDDEN"),
        ("GET /v1/nothing", {"Origin": "https://evil.example"}, 403, "FORBIDDEN"),  # it learns nothing of what is there
        ("OPTIONS /v1/echo", {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}, 403, "FORBIDDEN"),
        ("GET /v1/things/%ff", ALICE, 400, "VALIDATION_ERROR"),
        ("GET /v1/things/%00", ALICE, 400, "VALIDATION_ERROR"),
        ("GET /v1/things/%zz", ALICE, 400, "VALIDATION_ERROR"),
        ("GET /v1/things/a?x=%ff", ALICE, 400, "VALIDATION_ERROR"),
        ("PATCH /v1/things/a", {**ALICE, "Idempotency-Key": "\xff"}, 400, "VALIDATION_ERROR"),
        ("PUT /v1/things/a", ALICE, 405, "METHOD_NOT_ALLOWED"),
        ("TRACE /v1/nothing", {}, 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS /v1/nothing", {}, 404, "NOT_FOUND"),
    ],
)
async def test_what_the_head_refuses_needs_no_body_and_is_counted(
    line: str, headers: Mapping[str, str], status: int, code: str
) -> None:
    asked = exchange()
    reply = asked.begin(head(line, {"X-Request-ID": "mine", **headers}), "192.0.2.1:1")
    assert isinstance(reply, Reply)
    assert (reply.status, word(reply), reply.headers["X-Request-ID"]) == (status, code, "mine")
    assert asked.refused == {code: 1}
    assert ("Allow" in reply.headers) is (status == 405)


@pytest.mark.parametrize(
    ("line", "headers", "shown"),
    [
        ("OPTIONS *", {}, {"Allow": EVERY_METHOD}),
        ("OPTIONS /v1/echo", {}, {"Allow": "POST, OPTIONS"}),
        ("OPTIONS /v1/things/a", {}, {"Allow": "GET, PATCH, DELETE, HEAD, OPTIONS"}),
        ("OPTIONS /v1/nothing", {"Origin": "http://test", "Access-Control-Request-Method": "GET"},
         {"Access-Control-Allow-Origin": "http://test", "Access-Control-Allow-Methods": EVERY_METHOD}),
    ],
)  # fmt: skip
async def test_what_options_answers(line: str, headers: Mapping[str, str], shown: Mapping[str, str]) -> None:
    reply = exchange().begin(head(line, headers), "192.0.2.1:1")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (204, b"")
    assert shown.items() <= reply.headers.items()


@pytest.mark.parametrize("line", ["GET /", "GET /page", "GET /v1/nothing", "POST /v1/nothing", "GET *", "PROPFIND /x"])
async def test_what_no_row_has_is_left_to_the_pages(line: str) -> None:
    asked = exchange()
    assert asked.begin(head(line), "192.0.2.1:1") is None
    assert asked.refused == {}


@pytest.mark.parametrize(
    ("line", "headers", "length", "status"),
    [
        ("POST /v1/echo", {"Content-Type": "application/json"}, 2, None),
        ("POST /v1/echo", {"Content-Type": "application/json;charset=utf-8"}, 2, None),
        ("POST /v1/echo", {"Content-Type": "application/merge-patch+json"}, 2, None),
        ("POST /v1/echo", {}, 2, None),
        ("POST /v1/echo", {"Content-Type": "text/plain"}, 0, None),  # of no body
        ("POST /v1/echo", {"Content-Type": "text/plain"}, 2, 400),
        ("POST /v1/echo", {"Content-Type": "text/plain"}, None, 400),
        ("POST /v1/echo", {"Content-Type": "multipart/form-data; boundary=x"}, 2, 400),
        ("POST /v1/echo", {"Content-Type": "application/json, text/html"}, 2, 400),
        ("GET /livez", {"Content-Type": "text/plain"}, 2, None),  # whose body is dropped
    ],
)
async def test_which_bodies_are_taken(line: str, headers: Mapping[str, str], length: int | None, status: int | None) -> None:
    begun = exchange().begin(head(line, headers, length=length), "192.0.2.1:1")
    assert isinstance(begun, Reply if status else Call)
    if isinstance(begun, Reply):
        assert (begun.status, word(begun)) == (status, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "object"), (b"1", "object"), (b"null", "object"), (b'"x"', "object"), (b"true", "object"),
        (b"{", "json"), (b"{} {}", "json"), (b"\xff", "json"), (b'{"text":"\xff"}', "json"), (b"{'a':1}", "json"),
        (b"[" * 100_000, "json"), (b'{"a":' * 50_000, "json"), (b"\xef\xbb\xbf{}", "json"), (b" ", "json"),
        (b'{"text":"\0"}', "json"), (rb'{"text":"\ud800"}', "json"), (rb'{"text":"\u0000"}', "nul"), (b'{"a":1e999}', "json"),
    ],
)  # fmt: skip
def test_what_is_no_body_is_told_why(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_object(body)
    assert caught.value.details["reason"] == said


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_3", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False), ("a/b", False), ("\xe9", False)],
)
async def test_which_request_ids_are_kept(given: str, kept: bool) -> None:
    carried = exchange().standing(head("GET /", {"X-Request-ID": given}).headers)
    assert (carried["X-Request-ID"] == given) is kept
    assert carried["X-Request-ID"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", False),
        ("", False),
    ],
)
async def test_which_traces_are_kept(given: str, kept: bool) -> None:
    assert ("traceparent" in exchange().standing(head("GET /", {"traceparent": given}).headers)) is kept


@pytest.mark.parametrize(
    ("query", "headers", "body", "text", "key"),
    [
        ("", {}, b"{}", "", None),
        ("?text=q", {}, b"{}", "q", None),
        ("?text=q", {}, b'{"text":"b"}', "b", None),
        ("?text=q&id=evil", {}, b'{"id":"evil"}', "q", None),
        ("", {"Idempotency-Key": "h"}, b"{}", "", "h"),
        ("?key=q", {"Idempotency-Key": "h"}, b"{}", "", "q"),
        ("?key=q", {"Idempotency-Key": "h"}, b'{"key":"b"}', "", "b"),
        ("?text=q", {}, b"", "q", None),
    ],
)
async def test_where_a_field_may_stand_and_which_place_counts(
    query: str, headers: Mapping[str, str], body: bytes, text: str, key: str | None
) -> None:
    asked = exchange()
    call = asked.begin(head(f"PATCH /v1/things/a{query}", {**ALICE, **headers}, length=len(body)), "192.0.2.1:1")
    assert isinstance(call, Call)
    data = msgspec.json.decode((await asked.run(call, body)).body)["data"]
    assert (data["id"], data["text"], data["key"], data["user"]) == ("a", text, key, "alice")


async def test_a_refused_body_is_counted_with_the_refusals_of_heads() -> None:
    asked = exchange()
    call = asked.begin(head("POST /v1/echo", length=2), "192.0.2.1:1")
    assert isinstance(call, Call)
    assert (await asked.run(call, b"[]")).status == 400
    assert asked.refused == {"VALIDATION_ERROR": 1}
