"""Values that stand in a request outside its JSON: the query string, a bearer token, a header that gives a field."""

from __future__ import annotations

from collections.abc import Mapping

from secureconnect.errors import BadRequest, NotAuthenticated
from secureconnect.server.message import Headers
from secureconnect.server.router import decode

QUERY_FIELDS_MAX = 128
"""Far above what any row takes; bounds the work that a head of 32 KiB can ask for."""


def read_query(raw: bytes) -> dict[str, object]:
    """The fields of a query string; a repeated one is the list of its values. Raises: BadRequest for what does not decode."""
    if not raw:
        return {}
    pieces = raw.split(b"&")
    if len(pieces) > QUERY_FIELDS_MAX:
        raise BadRequest(f"The query has more than {QUERY_FIELDS_MAX} fields", details={"reason": "query_fields"})
    fields: dict[str, object] = {}
    for piece in pieces:
        if not piece:
            continue
        name, _, value = piece.partition(b"=")
        key, text = _text(name), _text(value)
        known = fields.get(key)
        if known is None:
            fields[key] = text
        elif isinstance(known, list):
            known.append(text)
        else:
            fields[key] = [known, text]
    return fields


def bearer(value: bytes) -> str:
    """The token of an `Authorization` header (RFC 6750 §2.1; the scheme's case does not matter). Raises: NotAuthenticated."""
    scheme, _, token = value.partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or not token or not token.isascii() or b" " in token:
        raise NotAuthenticated("Authorization must be `Bearer <token>`")
    return token.decode("ascii")


def header_fields(wanted: Mapping[str, str], headers: Headers) -> dict[str, object]:
    """The fields that request headers give, by a row's table of header -> field. Raises: BadRequest when one is not UTF-8."""
    fields: dict[str, object] = {}
    for name, field in wanted.items():
        value = headers.get(name.encode("ascii"))
        if value is not None:
            try:
                fields[field] = value.decode()
            except UnicodeDecodeError:
                raise BadRequest(f"The header {name} is not UTF-8", details={"field": field}) from None
    return fields


def _text(raw: bytes) -> str:
    return decode(raw.replace(b"+", b" "), "query")
