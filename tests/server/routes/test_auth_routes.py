"""`/v1/auth` as clients see it: names, types and codes of the answers, through dispatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.features.auth.kit import PASSWORD, House, open_house

from secureconnect.errors import NotAuthenticated
from secureconnect.features.auth.model import Identity
from secureconnect.ids import RequestId, is_uuid
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context, Endpoint, Via
from secureconnect.server.routes import auth as routes
from secureconnect.server.wire import Response

REGISTER = {"email": "Ada@example.com", "username": "ada", "password": PASSWORD, "display_name": "Ada Lovelace"}
LOGIN = {"email": "ada@example.com", "password": PASSWORD}
USER_FIELDS = {"user_id", "email", "username", "display_name", "status", "created_at"}
LOGIN_FIELDS = {"user", "access_token", "refresh_token", "session_id", "expires_in", "expires_at", "token_type"}


class Face:
    """What a front does: finds the row, verifies the token, calls dispatch."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.rows: dict[str, Endpoint] = {row.name: row for row in routes.endpoints(house.auth)}
        self.dispatcher = Dispatcher()

    async def call(
        self, name: str, values: Mapping[str, object] | None = None, *, token: str = "", via: Via = "http"
    ) -> Response:
        context = Context(via, "192.0.2.7:50123", RequestId("r1"), self.identity(token), user_agent="curl/8")
        return await self.dispatcher.call(self.rows[name], values or {}, context)

    def identity(self, token: str) -> Identity | None:
        try:
            return self.house.auth.verify(token)
        except NotAuthenticated:
            return None


def face() -> Face:
    return Face(open_house())


def data(response: Response, status: int = 200) -> dict[str, Any]:
    assert response.error is None, response.error
    assert response.status == status
    assert response.data is not None
    value = json.loads(response.data)
    assert isinstance(value, dict)
    return value


def refusal(response: Response, status: int, code: str) -> dict[str, object]:
    assert response.error is not None
    assert (response.status, response.error.word) == (status, code)
    return response.error.details


async def test_register_answers_user_and_tokens() -> None:
    answer = data(await face().call("auth.register", {**REGISTER, "device_id": "phone"}), 201)
    assert set(answer) == LOGIN_FIELDS
    assert set(answer["user"]) == USER_FIELDS
    assert is_uuid(answer["session_id"])
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
    assert answer["expires_at"] == "2026-01-09T23:21:40.000Z"
    assert answer["user"]["email"] == "ada@example.com"
    assert answer["user"]["created_at"] == "2026-01-09T23:06:40.000Z"
    assert answer["user"]["status"] == "offline"


async def test_old_clients_register_with_full_name_and_no_username() -> None:
    old = {"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada Lovelace"}
    user = data(await face().call("auth.register", old), 201)["user"]
    assert (user["username"], user["display_name"]) == ("ada.lovelace", "Ada Lovelace")


@pytest.mark.parametrize(("missing", "field"), [("email", "email"), ("password", "password"), ("display_name", "display_name")])
async def test_a_missing_field_is_named(missing: str, field: str) -> None:
    values: dict[str, object] = {key: value for key, value in REGISTER.items() if key != missing}
    assert refusal(await face().call("auth.register", values), 400, "VALIDATION_ERROR")["field"] == field


@pytest.mark.parametrize("values", [{"username": "a b"}, {"username": 7}, {"username": ["ada"]}])
async def test_a_wrong_field_is_named(values: dict[str, object]) -> None:
    assert refusal(await face().call("auth.register", {**REGISTER, **values}), 400, "VALIDATION_ERROR")["field"] == "username"


async def test_a_conflict_is_409_and_names_what_is_taken() -> None:
    server = face()
    await server.call("auth.register", REGISTER)
    taken = refusal(await server.call("auth.register", {**REGISTER, "username": "eve"}), 409, "EMAIL_EXISTS")
    assert taken["field"] == "email"
    taken = refusal(await server.call("auth.register", {**REGISTER, "email": "eve@example.com"}), 409, "USERNAME_EXISTS")
    assert taken["field"] == "username"


async def test_login_answers_like_register() -> None:
    server = face()
    registered = data(await server.call("auth.register", REGISTER), 201)
    answer = data(await server.call("auth.login", {**LOGIN, "device_id": "phone"}))
    assert set(answer) == LOGIN_FIELDS
    assert answer["user"] == registered["user"]
    assert answer["session_id"] != registered["session_id"]


async def test_a_refused_login_is_one_answer_for_all_causes() -> None:
    server = face()
    await server.call("auth.register", REGISTER)
    for values in ({"email": "ada@example.com", "password": "wrong"}, {"email": "eve@example.com", "password": PASSWORD}):
        response = await server.call("auth.login", values)
        assert refusal(response, 401, "INVALID_CREDENTIALS") == {}
        assert str(response.error) == "Invalid email or password"


async def test_refresh_answers_new_tokens_and_the_same_again_for_the_same_id() -> None:
    server = face()
    first = data(await server.call("auth.register", REGISTER), 201)
    asked: dict[str, object] = {"refresh_token": first["refresh_token"], "client_refresh_id": "try 1"}
    second = data(await server.call("auth.refresh", asked))
    assert set(second) == LOGIN_FIELDS
    assert second["refresh_token"] != first["refresh_token"]
    assert second["session_id"] == first["session_id"]
    assert data(await server.call("auth.refresh", asked)) == second
    assert server.identity(second["access_token"]) is not None


async def test_tokens_are_not_interchangeable_on_the_wire() -> None:
    server = face()
    login = data(await server.call("auth.register", REGISTER), 201)
    refusal(await server.call("auth.refresh", {"refresh_token": login["access_token"]}), 401, "UNAUTHORIZED")
    refusal(await server.call("auth.profile", token=login["refresh_token"]), 401, "UNAUTHORIZED")


async def test_reuse_is_401_and_ends_the_session() -> None:
    server = face()
    first = data(await server.call("auth.register", REGISTER), 201)
    second = data(await server.call("auth.refresh", {"refresh_token": first["refresh_token"]}))
    response = await server.call("auth.refresh", {"refresh_token": first["refresh_token"]})
    refusal(response, 401, "UNAUTHORIZED")
    assert str(response.error) == "Invalid or expired refresh token"
    assert server.identity(second["access_token"]) is None
    assert server.house.ended == [(first["session_id"], "reuse")]


@pytest.mark.parametrize("via", ["http", "socket"])
async def test_logout_needs_only_the_token(via: Via) -> None:
    server = face()
    login = data(await server.call("auth.register", REGISTER), 201)
    response = await server.call("auth.logout", {"session_id": "whatever"}, token=login["access_token"], via=via)
    assert data(response) == {"message": "Logged out successfully"}
    assert server.identity(login["access_token"]) is None


async def test_the_profile_is_the_full_user_with_his_role() -> None:
    server = face()
    login = data(await server.call("auth.register", REGISTER), 201)
    profile = data(await server.call("auth.profile", token=login["access_token"]))
    assert set(profile) == USER_FIELDS | {"role", "updated_at"}
    assert profile["role"] == "user"
    assert profile.items() >= login["user"].items()


async def test_sessions_are_listed_and_ended() -> None:
    server = face()
    here = data(await server.call("auth.register", REGISTER), 201)
    server.house.clock.advance(1)
    phone = data(await server.call("auth.login", {**LOGIN, "device_id": "phone"}))
    listed = data(await server.call("auth.sessions", token=here["access_token"]))["sessions"]
    assert [(one["session_id"], one["current"]) for one in listed] == [(phone["session_id"], False), (here["session_id"], True)]
    assert listed[0].items() >= {"device_id": "phone", "user_agent": "curl/8", "ip_address": "192.0.2.7"}.items()
    assert "device_id" not in listed[1]
    ended = await server.call("auth.session_end", {"session_id": phone["session_id"]}, token=here["access_token"])
    assert data(ended) == {"message": "Session ended"}
    again = await server.call("auth.session_end", {"session_id": phone["session_id"]}, token=here["access_token"])
    refusal(again, 404, "NOT_FOUND")
    refusal(await server.call("auth.sessions", token=phone["access_token"]), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("name", ["auth.logout", "auth.profile", "auth.sessions", "auth.session_end"])
async def test_strangers_are_asked_for_a_token_first(name: str) -> None:
    response = await face().call(name)
    refusal(response, 401, "UNAUTHORIZED")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_each_operation_names_its_rate_class() -> None:
    rates = {name: row.rate for name, row in face().rows.items()}
    assert rates == {
        "auth.register": "register",
        "auth.login": "login",
        "auth.refresh": "refresh",
        "auth.logout": "account",
        "auth.profile": "account",
        "auth.sessions": "account",
        "auth.session_end": "account",
    }


def test_secrets_do_not_show_in_the_repr_of_params() -> None:
    for params in (
        routes.RegisterParams("ada@example.com", PASSWORD, "Ada"),
        routes.LoginParams("ada@example.com", PASSWORD),
        routes.RefreshParams("a refresh token"),
    ):
        assert PASSWORD not in repr(params)
        assert "a refresh token" not in repr(params)


def test_every_result_has_a_schema() -> None:
    """`/openapi.json` is made from these types."""
    results = [row.result for row in face().rows.values()]
    schemas, components = msgspec.json.schema_components(results)
    assert len(schemas) == len(results)
    assert set(components["UserObject"]["properties"]) == USER_FIELDS | {"avatar_url"}
