"""The order of a request's stations, its deadline, and what its failures look like."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
import trio
from trio.testing import MockClock

from secureconnect.errors import BackendDown, Overloaded
from secureconnect.features.auth.model import Identity
from secureconnect.ids import RequestId, SessionId, UserId
from secureconnect.observe import stage
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Answer, Context, Endpoint, Handler
from secureconnect.server.wire import Response, http_body, socket_answer


class Params(msgspec.Struct):
    text: str
    limit: int = 20


ME = Identity(UserId("u"), SessionId("s"), "ada", "ada@example.org", "user", 2**40)


def row(call: Handler, **more: object) -> Endpoint:
    return Endpoint(name="test.do", method="POST", path="/do", params=Params, call=call, **more)  # type: ignore[arg-type]  # any of its fields


async def ask(endpoint: Endpoint, values: Mapping[str, object], *, identity: Identity | None = ME) -> Response:
    return await Dispatcher().call(endpoint, values, Context("http", "127.0.0.1:1", RequestId("r"), identity))


async def echo(context: Context, params: Params) -> Answer:
    await trio.lowlevel.checkpoint()
    return Answer({"text": params.text, "limit": params.limit}, headers={"X-Kind": "echo"})


async def test_a_result_is_encoded_with_its_status_and_headers() -> None:
    response = await ask(row(echo, status=201), {"text": "hi", "unknown": 1})
    assert (response.status, response.data, response.headers) == (201, b'{"text":"hi","limit":20}', {"X-Kind": "echo"})


@pytest.mark.parametrize(("values", "field"), [({}, "text"), ({"text": 5}, "text"), ({"text": "hi", "limit": "many"}, "limit")])
async def test_a_wrong_field_is_named(values: Mapping[str, object], field: str) -> None:
    response = await ask(row(echo), values)
    assert response.status == 400
    assert response.error is not None
    assert response.error.details["field"] == field


async def test_an_alias_counts_where_its_field_is_absent() -> None:
    endpoint = row(echo, aliases={"content": "text"})
    assert (await ask(endpoint, {"content": "hi"})).status == 200
    assert (await ask(endpoint, {"content": "old", "text": "new"})).data == b'{"text":"new","limit":20}'


async def test_a_stranger_is_told_nothing_but_to_log_in() -> None:
    response = await ask(row(echo), {}, identity=None)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (await ask(row(echo, permission="public"), {"text": "hi"}, identity=None)).status == 200


async def test_a_deadline_names_the_stage_that_used_the_time(autojump_clock: MockClock) -> None:
    async def hang(context: Context, params: Params) -> None:
        stage.at("log.append")
        await trio.sleep_forever()

    began = trio.current_time()
    with trio.move_on_after(100) as scope:
        response = await ask(row(hang), {"text": "hi"})
    assert not scope.cancelled_caught, "the request outlived its deadline"
    assert trio.current_time() - began == 30
    assert response.status == 504
    assert response.error is not None
    assert response.error.details == {"stage": "log.append", "deadline_s": 30.0}


async def test_what_is_away_answers_503_with_a_time_to_come_back() -> None:
    async def away(context: Context, params: Params) -> None:
        await trio.lowlevel.checkpoint()
        raise BackendDown("sql", retry_after_s=2.5)

    response = await ask(row(away), {"text": "hi"})
    assert (response.status, response.headers["Retry-After"]) == (503, "3")


async def test_a_bug_answers_500_without_its_text_and_is_counted() -> None:
    async def bug(context: Context, params: Params) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("the secret is 42")

    dispatcher = Dispatcher()
    response = await dispatcher.call(row(bug), {"text": "hi"}, Context("http", "", RequestId("r"), ME))
    assert response.status == 500
    assert b"42" not in http_body(response, RequestId("r"), 0)
    assert dispatcher.counters.unexpected == 1


def test_an_error_looks_the_same_on_both_faces() -> None:
    response = Response(503, error=Overloaded("full", details={"channel": "c"}))
    inside = b'{"code":"OVERLOADED","message":"full","retryable":true,"retry_after_s":1.0,"details":{"channel":"c"}}'
    assert socket_answer(7, response) == b'{"id":7,"error":%b}' % inside
    assert http_body(response, RequestId("r"), 0).startswith(b'{"success":false,"error":%b' % inside)
