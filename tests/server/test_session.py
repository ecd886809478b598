"""The session's state machine as tables: frames in, effects out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from secureconnect.server.endpoints import Context, Endpoint, NoParams
from secureconnect.server.session import Authenticate, Command, Pong, Run, RunAside, Say, Session, event


async def _never(context: Context, params: msgspec.Struct) -> object:
    raise AssertionError("the session runs nothing itself")


def row(name: str, *, parallel: bool = False, overlaps: bool = False) -> Endpoint:
    return Endpoint(name=name, method="POST", path="/" + name, params=NoParams, call=_never, parallel=parallel, overlaps=overlaps)


METHODS: Mapping[str, Endpoint] = {
    "send": row("send"),
    "history": row("history", parallel=True),
    "append": row("append", overlaps=True),
}


def session(*, is_authenticated: bool = True, waiting_max: int = 3, aside_max: int = 2) -> Session:
    it = Session(METHODS, waiting_max=waiting_max, aside_max=aside_max)
    if is_authenticated:
        it.opened()
    return it


def call(command_id: int, method: str = "send") -> bytes:
    return msgspec.json.encode({"id": command_id, "method": method})


def command(command_id: int, method: str = "send") -> Command:
    return Command(command_id, METHODS[method], {})


def refused(effect: object) -> tuple[object, str, str | None]:
    """(id, code, field) of a refusing answer."""
    assert isinstance(effect, Say)
    answer = msgspec.json.decode(effect.payload)
    assert set(answer) == {"id", "error"}
    return answer["id"], answer["error"]["code"], answer["error"].get("details", {}).get("field")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"", (None, "VALIDATION_ERROR", None)),
        (b"not json", (None, "VALIDATION_ERROR", None)),
        (b"[" * 100_000, (None, "VALIDATION_ERROR", None)),
        (b"[]", (None, "VALIDATION_ERROR", None)),
        (b"17", (None, "VALIDATION_ERROR", None)),
        (b'{"method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":null,"method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":true,"method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":1.5,"method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":99999999999999999999,"method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":"' + b"x" * 129 + b'","method":"send"}', (None, "VALIDATION_ERROR", "id")),
        (b'{"id":"\\ud800","method":"send"}', (None, "VALIDATION_ERROR", None)),
        (b'{"id":7}', (7, "VALIDATION_ERROR", "method")),
        (b'{"id":"a","method":5}', ("a", "VALIDATION_ERROR", "method")),
        (b'{"id":7,"method":"send","params":[]}', (7, "VALIDATION_ERROR", "params")),
        (b'{"id":7,"method":"nothing"}', (7, "METHOD_NOT_FOUND", "method")),
        (b'{"id":7,"method":"auth"}', (7, "VALIDATION_ERROR", "token")),
        (b'{"id":7,"method":"auth","params":{"token":5}}', (7, "VALIDATION_ERROR", "token")),
    ],
)
def test_what_is_no_command_is_answered_and_names_the_problem(frame: bytes, expected: object) -> None:
    assert refused(session().received(frame[:200_000])) == expected


@pytest.mark.parametrize("command_id", [0, -5, 2**63 - 1, "", "a", "x" * 128])
def test_every_usable_id_is_taken(command_id: int | str) -> None:
    effect = session().received(msgspec.json.encode({"id": command_id, "method": "send", "params": None}))
    assert effect == Run(Command(command_id, METHODS["send"], {}))


@pytest.mark.parametrize("is_authenticated", [False, True])
def test_ping_is_answered_in_every_state_and_needs_no_id(is_authenticated: bool) -> None:
    it = session(is_authenticated=is_authenticated)
    assert it.received(b'{"method":"ping"}') == Pong(None)
    assert it.received(b'{"id":3,"method":"ping"}') == Pong(3)


def test_before_authentication_only_auth_is_served() -> None:
    it = session(is_authenticated=False)
    assert refused(it.received(call(1))) == (1, "UNAUTHORIZED", None)
    assert refused(it.received(call(2, "nothing"))) == (2, "UNAUTHORIZED", None)
    assert it.received(b'{"id":0,"method":"auth","params":{"token":"t"}}') == Authenticate(0, "t")
    assert refused(it.received(call(3))) == (3, "UNAUTHORIZED", None)
    it.opened()
    assert it.received(call(4)) == Run(command(4))


def test_an_open_socket_may_bring_a_fresh_token() -> None:
    assert session().received(b'{"id":9,"method":"auth","params":{"token":"t2"}}') == Authenticate(9, "t2")


def test_commands_run_one_after_another_in_the_order_of_arrival() -> None:
    it = session()
    assert it.received(call(1)) == Run(command(1))
    assert it.received(call(2)) is None
    assert it.received(call(3)) is None
    assert it.next_in_turn() == command(2)
    assert it.received(call(4)) is None
    assert [it.next_in_turn(), it.next_in_turn(), it.next_in_turn()] == [command(3), command(4), None]
    assert not it.is_busy
    assert it.received(call(5)) == Run(command(5))


def test_parallel_commands_run_aside_up_to_their_limit() -> None:
    it = session()
    assert it.received(call(1)) == Run(command(1))
    assert [it.received(call(n, "history")) for n in (2, 3, 4)] == [
        RunAside(command(2, "history")),
        RunAside(command(3, "history")),
        None,
    ]
    assert it.next_aside() == command(4, "history")
    assert [it.next_aside(), it.next_aside()] == [None, None]
    assert it.received(call(5, "history")) == RunAside(command(5, "history"))


def test_one_that_has_its_place_lets_the_next_of_its_kind_begin_and_nothing_else() -> None:
    it = session(waiting_max=9)
    assert it.received(call(1, "append")) == Run(command(1, "append"))
    assert [it.received(call(n, "append")) for n in (2, 3)] == [None, None]
    assert it.placed() == command(2, "append")
    assert it.placed() == command(3, "append")
    assert it.placed() is None
    assert it.received(call(4, "append")) == Run(command(4, "append"))
    assert it.placed() is None
    assert it.received(call(5)) is None
    assert it.received(call(6, "append")) is None, "nobody overtakes"
    assert [it.next_in_turn(was_placed=True) for _ in range(4)] == [None, None, None, command(5)]
    assert it.next_in_turn() == command(6, "append")
    assert it.is_busy
    assert it.next_in_turn() is None
    assert not it.is_busy


def test_one_that_ends_without_a_place_passes_the_turn_on_too() -> None:
    it = session(waiting_max=9)
    for n in (1, 2, 3):
        it.received(call(n, "append"))
    assert it.placed() == command(2, "append")
    assert it.next_in_turn() == command(3, "append")
    assert it.next_in_turn(was_placed=True) is None
    assert it.is_busy


def test_what_has_its_place_counts_as_waiting() -> None:
    it = session(waiting_max=2)
    it.received(call(1, "append"))
    it.placed()
    it.received(call(2, "append"))
    assert not it.is_full
    it.placed()
    assert it.is_full
    it.next_in_turn(was_placed=True)
    assert not it.is_full


def test_it_is_full_when_so_many_wait_and_not_when_one_has_gone() -> None:
    it = session(waiting_max=3, aside_max=1)
    for n, method in enumerate(("send", "history", "send", "history"), 1):
        it.received(call(n, method))
        assert not it.is_full
    it.received(call(5))
    assert it.is_full
    it.next_aside()
    assert not it.is_full


def test_closing_drops_what_waits_and_ignores_what_comes() -> None:
    it = session()
    it.received(call(1))
    it.received(call(2))
    it.close()
    assert it.received(call(3)) is None
    assert it.received(b'{"method":"ping"}') is None
    assert it.next_in_turn() is None


def test_the_envelope_of_an_event() -> None:
    assert event("drain", {"reconnect_in_ms": 5}) == b'{"event":"drain","data":{"reconnect_in_ms":5}}'
    assert event("unsubscribed", {"reason": "removed"}, channel="conversation:c") == (
        b'{"event":"unsubscribed","channel":"conversation:c","data":{"reason":"removed"}}'
    )
