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

from secureconnect.errors import Unavailable
from secureconnect.features.auth.model import Identity
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Answer, Context, Endpoint, NoParams
from secureconnect.server.exchange import Call, Exchange
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
