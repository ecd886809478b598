"""Paths to rows."""

from __future__ import annotations

import pytest

from secureconnect.errors import BadRequest
from secureconnect.server.endpoints import Context, Endpoint, NoParams
from secureconnect.server.router import Found, Router, WrongMethod


async def nothing(context: Context, params: NoParams) -> None:
    return None


def row(method: str, path: str, *also: tuple[str, str], name: str = "") -> Endpoint:
    return Endpoint(
        name=name or f"{method} {path}",
        method=method,  # type: ignore[arg-type]  # the tests use real ones
        path=path,
        params=NoParams,
        call=nothing,
        also=also,
    )


TABLE = Router(
    [
        row("GET", "/"),
        row("GET", "/v1/users/me"),
        row("PATCH", "/v1/users/me"),
        row("DELETE", "/v1/users/:id"),
        row("GET", "/v1/users/:id"),
        row("GET", "/v1/users/me/friends"),
        row("POST", "/v1/users/:id/friend"),
        row("DELETE", "/v1/groups/:group/members/:user", ("POST", "/v1/kick/:group/:user")),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "name", "fields"),
    [
        ("GET", b"/", "GET /", {}),
        ("GET", b"/v1/users/me", "GET /v1/users/me", {}),
        ("GET", b"/v1/users/me/", "GET /v1/users/me", {}),
        ("HEAD", b"/v1/users/me", "GET /v1/users/me", {}),
        ("GET", b"/v1/users/m%65", "GET /v1/users/me", {}),
        ("GET", b"/v1/users/you", "GET /v1/users/:id", {"id": "you"}),
        ("GET", b"/v1/users/a%2Fb%20c+d", "GET /v1/users/:id", {"id": "a/b c+d"}),
        ("GET", b"/v1/users/%C3%A9", "GET /v1/users/:id", {"id": "é"}),
        ("DELETE", b"/v1/users/me", "DELETE /v1/users/:id", {"id": "me"}),
        ("POST", b"/v1/users/me/friend", "POST /v1/users/:id/friend", {"id": "me"}),
        ("DELETE", b"/v1/groups/g/members/u/", "DELETE /v1/groups/:group/members/:user", {"group": "g", "user": "u"}),
        ("POST", b"/v1/kick/g/u", "DELETE /v1/groups/:group/members/:user", {"group": "g", "user": "u"}),
    ],
)
def test_a_path_finds_its_row_and_its_fields(method: str, path: bytes, name: str, fields: dict[str, str]) -> None:
    found = TABLE.find(method, path)
    assert isinstance(found, Found)
    assert (found.endpoint.name, found.fields) == (name, fields)


@pytest.mark.parametrize(
    "path",
    [b"/v1", b"/v1/users", b"/v1/users/", b"/v1/users//friend", b"/v1/users/a/b", b"//v1/users/me", b"/v1/users/me//",
     b"/V1/users/me", b"*", b"", b"/v1/users/a/" + b"/".join([b"b"] * 20)],
)  # fmt: skip
def test_other_paths_are_nobodys(path: bytes) -> None:
    assert TABLE.find("GET", path) is None


def test_a_wrong_method_is_told_every_right_one() -> None:
    assert TABLE.find("PUT", b"/v1/users/me") == WrongMethod(("GET", "PATCH", "DELETE", "HEAD", "OPTIONS"))
    assert TABLE.find("GET", b"/v1/kick/g/u") == WrongMethod(("POST", "OPTIONS"))


@pytest.mark.parametrize("path", [b"/v1/users/%", b"/v1/users/%4", b"/v1/users/%zz", b"/v1/users/%ff", b"/v1/users/%00"])
def test_a_path_that_does_not_decode_is_refused(path: bytes) -> None:
    with pytest.raises(BadRequest):
        TABLE.find("GET", path)


def test_two_rows_cannot_claim_one_address_or_one_name() -> None:
    with pytest.raises(ValueError, match="claimed twice"):
        Router([row("GET", "/a/:b"), row("GET", "/a/:c", name="other")])
    with pytest.raises(ValueError, match="two operations"):
        Router([row("GET", "/a", name="x"), row("GET", "/b", name="x")])
