"""The opening handshake as tables: what is accepted, what is refused with which status and word."""

from __future__ import annotations

import msgspec
import pytest

from secureconnect.errors import AtCapacity, NotAuthenticated, SecureConnectError
from secureconnect.ids import RequestId
from secureconnect.server.origins import Origins
from secureconnect.server.websocket_handshake import (
    HandshakeRequest,
    acceptance,
    bearer,
    check,
    refusal,
    request_id_of,
)

GOOD = {
    "host": "chat.example:8080",
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ORIGINS = Origins(["https://app.example"])


def request(
    method: str = "GET", version: str = "1.1", query: dict[str, str] | None = None, **headers: str | None
) -> HandshakeRequest:
    """A good request with these headers changed; None takes one away."""
    changed: dict[str, str | None] = {**GOOD, **{name.replace("_", "-"): value for name, value in headers.items()}}
    kept = {name: value for name, value in changed.items() if value is not None}
    return HandshakeRequest(method, "/v1/ws", query or {}, kept, "192.0.2.1:4000", version)


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request(connection="upgrade"),
        request(upgrade="h2c, websocket"),
        request(origin="http://chat.example:8080"),
        request(origin="HTTPS://App.Example"),
        request(host="chat.example", origin="https://chat.example"),
        request(host="chat.example:443", origin="https://chat.example"),
    ],
)
def test_a_good_handshake_passes(good: HandshakeRequest) -> None:
    check(good, ORIGINS)


@pytest.mark.parametrize(
    ("bad", "status", "field"),
    [
        (request("POST"), 405, None),
        (request(version="1.0"), 426, None),
        (request(upgrade=None), 426, None),
        (request(connection="close"), 426, None),
        (request(connection="upgraded"), 426, None),
        (request(sec_websocket_version="8"), 426, None),
        (request(sec_websocket_version="13, 8"), 426, None),
        (request(sec_websocket_version=None), 426, None),
        (request(sec_websocket_key=None), 400, "Sec-WebSocket-Key"),
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="), 400, "Sec-WebSocket-Key"),
        (request(sec_websocket_key="c2hvcnQ="), 400, "Sec-WebSocket-Key"),
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQé=="), 400, "Sec-WebSocket-Key"),
        (request(origin="http://evil.example"), 403, "Origin"),
        (request(origin="null"), 403, "Origin"),
        (request(origin=""), 403, "Origin"),
        (request(origin="http://chat.example.evil.example:8080"), 403, "Origin"),
    ],
)
def test_a_bad_handshake_is_refused_with_its_reason(bad: HandshakeRequest, status: int, field: str | None) -> None:
    with pytest.raises(SecureConnectError) as caught:
        check(bad, ORIGINS)
    assert caught.value.status == status
    assert caught.value.details.get("field") == field


@pytest.mark.parametrize(
    ("asked", "token"),
    [
        (request(), None),
        (request(authorization="Bearer abc"), "abc"),
        (request(authorization="bearer  abc "), "abc"),
        (request(query={"token": "t"}), "t"),
        (request(query={"access_token": "a"}), "a"),
        (request(query={"access_token": "a", "token": "t"}), "t"),
        (request(query={"token": "t"}, authorization="Bearer h"), "h"),
        (request(query={"token": ""}), ""),
    ],
)
def test_where_the_token_is_found(asked: HandshakeRequest, token: str | None) -> None:
    assert bearer(asked) == token


def test_another_scheme_is_no_token() -> None:
    with pytest.raises(NotAuthenticated):
        bearer(request(authorization="Basic dXNlcjpwYXNz"))


def test_the_acceptance_is_the_one_of_the_rfc() -> None:
    lines = acceptance(request(), RequestId("r1")).decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines  # RFC 6455 §1.3
    assert not any(line.startswith("Sec-WebSocket-Protocol") for line in lines)
    assert lines[-2:] == ["", ""]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("secureconnect.v1", True), ("chat, secureconnect.v1", True), ("chat", False), ("secureconnect.v11", False)],
)
def test_our_subprotocol_is_chosen_when_it_is_offered(offered: str, chosen: bool) -> None:
    head = acceptance(request(sec_websocket_protocol=offered), RequestId("r1"))
    assert (b"\r\nSec-WebSocket-Protocol: secureconnect.v1\r\n" in head) is chosen


def test_a_refusal_is_an_enveloped_answer() -> None:
    head, _, body = refusal(AtCapacity(retry_after_s=4.2), RequestId("r1"), 0).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert "X-Content-Type-Options: nosniff" in lines
    assert {"Retry-After: 5", "Connection: close", "X-Request-ID: r1", f"Content-Length: {len(body)}"} <= set(lines)
    answer = msgspec.json.decode(body)
    assert answer["success"] is False
    assert answer["error"]["code"] == "SERVER_AT_CAPACITY"
    assert answer["meta"]["request_id"] == "r1"


def test_a_refusal_for_want_of_an_upgrade_says_what_is_wanted() -> None:
    with pytest.raises(SecureConnectError) as caught:
        check(request(upgrade=None), ORIGINS)
    head = refusal(caught.value, RequestId("r1"), 0).partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert b"\r\nSec-WebSocket-Version: 13" in head
    assert b"\r\nUpgrade: websocket" in head


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1._X", True), ("a b", False), ("x" * 129, False), ("", False), ("a\r\nb", False)]
)
def test_a_good_request_id_is_kept_and_anything_else_replaced(given: str, kept: bool) -> None:
    assert request_id_of(request(x_request_id=given), "fresh") == (given if kept else "fresh")
