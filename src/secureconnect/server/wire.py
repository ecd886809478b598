"""How answers look on the wire: the HTTP envelope, the socket's answer, and the same error inside both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

import msgspec

from secureconnect.errors import BadRequest, SecureConnectError
from secureconnect.ids import RequestId
from secureconnect.ports import rfc3339 as rfc3339

NUL = b"\\u0000"
"""How JSON writes U+0000, its only spelling: as a byte it is refused. Look for it in the raw JSON before `refuse_nul`."""
NAMED_MAX = 1_000
"""Fields looked through for the one to name; no operation takes a tenth of them."""
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""Behind an even number of backslashes: behind an odd one it is the text of a backslash and `u0000`."""
encode = msgspec.json.Encoder(decimal_format="number").encode


class Response(msgspec.Struct, frozen=True):
    """What dispatch answers, not yet bytes. Exactly one of `data` (ready JSON, None: no data) and `error` speaks;
    `document` replaces the envelope for bare rows."""

    status: int
    data: bytes | None = None
    error: SecureConnectError | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    meta: Mapping[str, object] = msgspec.field(default_factory=dict)
    document: bytes | None = None
    content_type: str = "application/json"


def error_object(error: SecureConnectError) -> dict[str, object]:
    """`{code, message, retryable, retry_after_s?, details?}`: the same on every face."""
    shown: dict[str, object] = {
        "code": error.word,
        "message": error.message,
        "retryable": error.retryable,
    }
    if error.retry_after_s is not None:
        shown["retry_after_s"] = error.retry_after_s
    if error.details:
        shown["details"] = error.details
    return shown


def http_body(response: Response, request_id: RequestId, now_us: int) -> bytes:
    """The envelope: `{success, data?, error?, meta: {timestamp, request_id, …}}`."""
    if response.document is not None:
        return response.document
    meta = encode({"timestamp": rfc3339(now_us), "request_id": request_id, **response.meta})
    if response.error is not None:
        return b'{"success":false,"error":%b,"meta":%b}' % (encode(error_object(response.error)), meta)
    if response.data is None:
        return b'{"success":true,"meta":%b}' % meta
    return b'{"success":true,"data":%b,"meta":%b}' % (response.data, meta)


def socket_answer(frame_id: int | str | None, response: Response) -> bytes:
    """`{"id", "result"}` or `{"id", "error"}`; `meta` (staleness) stands beside the result when there is any."""
    named = encode(frame_id)
    if response.error is not None:
        return b'{"id":%b,"error":%b}' % (named, encode(error_object(response.error)))
    meta = b',"meta":' + encode(response.meta) if response.meta else b""
    return b'{"id":%b,"result":%b%b}' % (named, response.data or b"null", meta)


def refuse_nul(raw: bytes, fields: Mapping[str, object]) -> None:
    """PostgreSQL stores no U+0000 in a text, so no store of ours takes one. Call it where `NUL` is in the JSON `raw`.

    It reads JSON again instead of walking through values: a body of 1 MiB can hold half a million of them. Paths and queries
    are decoded without a NUL (`router.decode`). Raises: BadRequest naming the first of `fields` that has one, at any depth.
    """
    if _NUL_ESCAPE.search(raw) is None:
        return
    for name, value in islice(fields.items(), NAMED_MAX):
        if "\0" in name:
            raise _has_nul("body")
        if _has_escape(value):
            raise _has_nul(name)
    if len(fields) > NAMED_MAX:
        raise _has_nul("body")


def _has_escape(value: object) -> bool:
    try:
        return _NUL_ESCAPE.search(encode(value)) is not None
    except RecursionError:
        return True


def _has_nul(field: str) -> BadRequest:
    return BadRequest(f"{field}: the character U+0000 cannot be stored", details={"field": field, "reason": "nul"})
