"""What both faces read and write alike: texts that no store can keep."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from tests.server.front_kit import open_front, request
from trio.testing import MockClock

from secureconnect.errors import BadRequest
from secureconnect.server.endpoints import Context, Endpoint, NoParams
from secureconnect.server.session import Run, Say, Session
from secureconnect.server.wire import NAMED_MAX, NUL, refuse_nul

CASES = [
    (rb'{"text":"a\u0000b"}', "text"),
    (rb'{"text":"\u0000"}', "text"),
    (rb'{"text":"ok","metadata":{"deep":[1,{"x":"\u0000"}]}}', "metadata"),
    (rb'{"text":"ok","tags":["a","\u0000"]}', "tags"),
    (rb'{"text":"ok","metadata":{"a\u0000":1}}', "metadata"),
    (rb'{"text\u0000":"ok"}', "body"),
    (rb'{"text":"\\\u0000"}', "text"),
    (rb'{"text":"\\\\\\\u0000"}', "text"),
    (rb'{"text":"\\u0000 and \u0000"}', "text"),
    # no NUL: the text of a backslash and what stands behind it
    (rb'{"text":"\\u0000"}', None),
    (rb'{"text":"\\\\u0000"}', None),
    (rb'{"text":"a\\\\\\u0000"}', None),
    (rb'{"text":"\u00000"}', "text"),
    (rb'{"text":"\u0001"}', None),
    (rb'{"text":"u0000"}', None),
]


def texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


@pytest.mark.parametrize(("raw", "field"), CASES)
def test_a_nul_is_found_wherever_it_stands_and_its_field_named(raw: bytes, field: str | None) -> None:
    value = msgspec.json.decode(raw)
    assert ("\0" in "".join(texts(value))) is (field is not None)
    if field is None:
        refuse_nul(raw, value)
        return
    assert NUL in raw
    with pytest.raises(BadRequest) as caught:
        refuse_nul(raw, value)
    assert caught.value.details == {"field": field, "reason": "nul"}


def test_among_very_many_fields_it_is_refused_without_a_name() -> None:
    fields = {f"f{number}": "" for number in range(NAMED_MAX)} | {"last": "\0"}
    with pytest.raises(BadRequest) as caught:
        refuse_nul(msgspec.json.encode(fields), fields)
    assert caught.value.details["field"] == "body"


@pytest.mark.parametrize(("raw", "field"), CASES)
async def test_a_body_with_a_nul_is_400_and_the_connection_goes_on(
    raw: bytes, field: str | None, autojump_clock: MockClock
) -> None:
    async with open_front() as world:
        client = world.connect()
        got = await client.ask(request("POST /v1/echo", body=raw))
        if field is None:
            assert (got.status, got.data["text"]) == (200, msgspec.json.decode(raw)["text"])
        else:
            assert (got.status, got.error["code"], got.error["details"]["field"]) == (400, "VALIDATION_ERROR", field)
            assert world.table.contexts == []
        assert (await client.ask(request())).status == 200


@pytest.mark.parametrize(("raw", "field"), CASES)
@pytest.mark.parametrize("method", ["send", "auth"])
def test_a_command_with_a_nul_is_refused_under_its_id(method: str, raw: bytes, field: str | None) -> None:
    frame = b'{"id":7,"method":"%b","params":%b}' % (method.encode(), raw)
    row = Endpoint(name="send", method="POST", path="/send", params=NoParams, call=nothing)
    session = Session({"send": row})
    session.opened()
    effect = session.received(frame)
    if field is None:
        assert method == "auth" or isinstance(effect, Run)
        return
    assert isinstance(effect, Say)
    answer = msgspec.json.decode(effect.payload)
    assert answer["id"] == 7
    assert answer["error"]["details"] == {"field": field, "reason": "nul"}
    assert isinstance(session.received(b'{"id":8,"method":"send"}'), Run)


def test_a_nul_that_is_no_parameter_is_not_called_one() -> None:
    session = Session({})
    session.opened()
    effect = session.received(rb'{"id":"\u0000","method":"none\u0000","params":{"text":"x"}}')
    assert isinstance(effect, Say)
    answer = msgspec.json.decode(effect.payload)
    assert (answer["id"], answer["error"]["code"]) == ("\0", "METHOD_NOT_FOUND")


async def nothing(context: Context, params: NoParams) -> None:
    raise AssertionError("the session runs nothing itself")
