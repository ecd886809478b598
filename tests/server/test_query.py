"""Values beside the JSON: query strings, bearer tokens, headers that give a field."""

from __future__ import annotations

import pytest

from secureconnect.errors import BadRequest, NotAuthenticated
from secureconnect.server.query import QUERY_FIELDS_MAX, bearer, header_fields, read_query


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"", {}),
        (b"a=1", {"a": "1"}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a", {"a": ""}),
        (b"a=", {"a": ""}),
        (b"=1", {"": "1"}),
        (b"=", {"": ""}),
        (b"&&a=1&", {"a": "1"}),
        (b"a=1=2", {"a": "1=2"}),
        (b"a=1;b=2", {"a": "1;b=2"}),  # a semicolon separates nothing, or a proxy's cache could be told another request
        (b"a=1&a=2", {"a": ["1", "2"]}),
        (b"a=1&a=2&a=3", {"a": ["1", "2", "3"]}),
        (b"a=&a=", {"a": ["", ""]}),
        (b"a%5B%5D=1", {"a[]": "1"}),
        (b"a=q+%C3%A9", {"a": "q é"}),
        (b"a=%2B%26%3D%25", {"a": "+&=%"}),
        (b"a%3D=1", {"a=": "1"}),
        (b"a+b=1", {"a b": "1"}),
        (b"a=%F0%9F%98%80", {"a": "😀"}),
        (b"a=%0d%0a", {"a": "\r\n"}),
        (b"A=1&a=2", {"A": "1", "a": "2"}),
        (b"__proto__=1", {"__proto__": "1"}),
    ],
)
def test_a_query_is_read(raw: bytes, fields: dict[str, object]) -> None:
    assert read_query(raw) == fields


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a=%", "query_escape"),
        (b"a=%4", "query_escape"),
        (b"a=%zz", "query_escape"),
        (b"a=%u0041", "query_escape"),
        (b"%=1", "query_escape"),
        (b"a=%00", "query_nul"),
        (b"%00=1", "query_nul"),
        (b"a=%ff", "query_encoding"),
        (b"a=%c0%80", "query_encoding"),  # an overlong NUL
        (b"a=%ed%a0%80", "query_encoding"),  # half of a surrogate pair
        (b"a=\xff", "query_encoding"),
        (b"&".join([b"a=b"] * (QUERY_FIELDS_MAX + 1)), "query_fields"),
        (b"&" * QUERY_FIELDS_MAX, "query_fields"),
    ],
)
def test_what_does_not_decode_is_refused_by_name(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_query(raw)
    assert caught.value.details == {"reason": reason}


def test_as_many_fields_as_allowed_are_read() -> None:
    assert len(read_query(b"&".join(b"f%d=1" % number for number in range(QUERY_FIELDS_MAX)))) == QUERY_FIELDS_MAX


@pytest.mark.parametrize(
    "header", [b"Bearer abc.def-_~+/=", b"bearer abc.def-_~+/=", b"BEARER   abc.def-_~+/=", b"Bearer abc.def-_~+/= "]
)
def test_a_bearer_token_is_read_whatever_the_case_of_its_scheme(header: bytes) -> None:
    assert bearer(header) == "abc.def-_~+/="


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"abc",
        b"Basic YTpi",
        b"Bearer a b",
        b"Bearer\tabc",
        b"Bearer \xe9",
        b"Bearer, abc",
        b"Token abc",
    ],
)
def test_what_is_no_bearer_token_is_refused(header: bytes) -> None:
    with pytest.raises(NotAuthenticated):
        bearer(header)


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        ({b"idempotency-key": b"k"}, {"key": "k"}),
        ({b"idempotency-key": b""}, {"key": ""}),
        ({b"idempotency-key": "é".encode(), b"other": b"x"}, {"key": "é"}),
        ({b"x-session-id": b"s", b"idempotency-key": b"k"}, {"key": "k", "session_id": "s"}),
    ],
)
def test_headers_give_the_fields_that_the_row_names(headers: dict[bytes, bytes], fields: dict[str, object]) -> None:
    assert header_fields({"idempotency-key": "key", "x-session-id": "session_id"}, headers) == fields


def test_a_header_that_is_no_text_names_its_field() -> None:
    with pytest.raises(BadRequest) as caught:
        header_fields({"idempotency-key": "key"}, {b"idempotency-key": b"\xff"})
    assert caught.value.details == {"field": "key"}
