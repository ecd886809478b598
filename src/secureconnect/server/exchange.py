"""One HTTP request against the table of operations, whatever carried it: who asks, what for, with which values, and the answer.

`begin` decides all that the head decides (route, origin, token, request id), so that a refusal needs no body; `run` takes the
body and calls dispatch. Neither knows a connection: our front and the ASGI app are the callers, and both give the same answers.
A field may stand in the path, the body, the query or a header; the first of these that has it counts.

It is a door, as dispatch is: around dispatch there is code that may have a bug too (what checks the token, what writes the
answer), and a request that meets one is answered 500 with its id, like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec
import structlog

from secureconnect.errors import BadRequest, Forbidden, MethodNotAllowed, NotAuthenticated, NotFound, SecureConnectError
from secureconnect.features.auth.model import Identity
from secureconnect.ids import RequestId
from secureconnect.ports import Clock, Ids
from secureconnect.server import degraded
from secureconnect.server.degraded import Board
from secureconnect.server.dispatch import Dispatcher, failure
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.message import Head, Headers, Reply
from secureconnect.server.origins import Origins, TrustedProxies
from secureconnect.server.query import bearer, header_fields, read_query
from secureconnect.server.router import Found, Router, WrongMethod
from secureconnect.server.wire import NUL, Response, http_body, refuse_nul

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context §3.2."""
_JSON = re.compile(rb"application/(?:[a-z0-9.-]+\+)?json[ \t]*(?:;.*)?", re.IGNORECASE)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What is served at all."""
_CONTROLS: Mapping[int, None] = dict.fromkeys((*range(0x20), 0x7F))
"""For `str.translate`: no value may end the header line it stands on."""
_decode_json = msgspec.json.Decoder().decode
_log = structlog.get_logger("secureconnect.exchange")

AnswerHeaders = Mapping[str, str]


class Call(msgspec.Struct, frozen=True, gc=False):
    """An operation about to run: everything but its body."""

    endpoint: Endpoint
    context: Context
    fields: Mapping[str, str]
    """From the path."""
    defaults: Mapping[str, object]
    """From query and headers."""
    headers: AnswerHeaders
    """That its answer will carry, whatever it is."""
    takes_body: bool
    """Else a body is read and dropped."""


class Exchange:
    """The HTTP face of the table. One per server."""

    def __init__(
        self,
        router: Router,
        dispatcher: Dispatcher,
        *,
        authenticate: Callable[[str], Identity],
        clock: Clock,
        ids: Ids,
        origins: Origins | None = None,
        proxies: TrustedProxies | None = None,
        board: Callable[[], Board] = dict,
    ) -> None:
        """`authenticate` verifies an access token at once; it raises NotAuthenticated. `board`: what is degraded now."""
        self.router = router
        self.refused: dict[str, int] = {}
        """Answers given before dispatch, by error code, since the start."""
        self.unexpected = 0
        """Exceptions around dispatch that are bugs, since the start."""
        self._dispatcher = dispatcher
        self._authenticate = authenticate
        self._clock = clock
        self._ids = ids
        self._origins = origins or Origins()
        self._proxies = proxies or TrustedProxies()
        self._board = board

    def begin(self, head: Head, peer: str) -> Call | Reply | None:
        """What to do for this head: run a call, or answer at once. None: no row has this path (and it is not `OPTIONS`).

        Never raises.
        """
        headers = self.standing(head.headers)
        try:
            self.check_origin(head.headers, headers)
            found = self.router.find(head.method, head.path)
            if isinstance(found, Found):
                return self._call(head, found, peer, headers)
            if head.method == "OPTIONS":
                return _options(head.path, found, headers)
            if isinstance(found, WrongMethod):
                raise MethodNotAllowed(details={"allow": found.allow})
            if head.method == "TRACE":
                raise MethodNotAllowed("TRACE is not served here: it would show a page's scripts what its headers hide from them")
        except SecureConnectError as error:
            return self.refuse(error, headers)
        except Exception:  # noqa: BLE001  # the door in front of dispatch: what checks a token may have a bug too
            return self._failed(headers)
        return None

    async def run(self, call: Call, body: bytes) -> Reply:
        """Never raises but on cancellation."""
        try:
            given = read_object(body) if body and call.takes_body else {}
            if call.defaults or call.fields:
                given = {**call.defaults, **given, **call.fields}
            response = await self._dispatcher.call(call.endpoint, given, call.context)
            return self._reply(response, self._telling(call))
        except BadRequest as error:
            return self.refuse(error, call.headers)
        except Exception:  # noqa: BLE001  # the door behind dispatch: its answer cannot be observed, or is none that can be written
            return self._failed(call.headers)

    def _telling(self, call: Call) -> AnswerHeaders:
        """What is degraded when the answer is known, for it may be why it is that answer."""
        features = call.endpoint.features
        told = degraded.header(self._board(), features) if features else ""
        return {**call.headers, degraded.HEADER: told} if told else call.headers

    def refuse(self, error: SecureConnectError, headers: AnswerHeaders | None = None) -> Reply:
        """The answer to a request that does not reach dispatch. `headers` None: the request could not be read."""
        self._count(error)
        carried = headers or {"X-Request-ID": self._ids.new()}
        if isinstance(error, MethodNotAllowed):
            allow = error.details.setdefault("allow", METHODS)
            carried = {**carried, "Allow": ", ".join(allow) if isinstance(allow, Iterable) else ""}
        try:
            return self._reply(failure(error), carried)
        except Exception:  # noqa: BLE001  # the door of refusals: one whose details cannot be written is a bug as well
            return self._failed(carried)

    def nobody(self, headers: Headers) -> Reply:
        """The answer where no row and no page has the path; `begin` let the request's origin pass."""
        return self.refuse_begun(NotFound("There is nothing at this address"), headers)

    def refuse_begun(self, error: SecureConnectError, headers: Headers) -> Reply:
        """The answer to a request that `begin` let pass and whose page came to nothing."""
        carried = self.standing(headers)
        with suppress(Forbidden):
            self.check_origin(headers, carried)
        return self.refuse(error, carried)

    def standing(self, headers: Headers) -> dict[str, str]:
        """What every answer to this request carries: its id, its trace."""
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            carried = {"X-Request-ID": self._ids.new()}
        else:
            carried = {"X-Request-ID": request_id.decode("ascii")}
        trace = headers.get(b"traceparent")
        if trace is not None and _TRACEPARENT.fullmatch(trace):
            carried["traceparent"] = trace.decode("ascii")
        return carried

    def check_origin(self, headers: Headers, carried: dict[str, str]) -> None:
        """Adds what a page of an allowed origin needs to read the answer. Raises: Forbidden for any other origin."""
        given = headers.get(b"origin")
        if given is None:
            return
        origin = given.decode("latin-1")
        if not self._origins.allows(origin, headers.get(b"host", b"").decode("latin-1")):
            raise Forbidden("This web origin may not call here; ORIGINS lists those that may", details={"reason": "ORIGIN"})
        if b"access-control-request-method" in headers:
            carried.update(self._origins.preflight_headers(origin))
        else:
            carried.update(self._origins.answer_headers(origin))

    def client(self, headers: Headers, peer: str) -> str:
        """Who really asks, `host:port`, where a trusted proxy says so."""
        return self._proxies.client(peer, headers.get(b"x-forwarded-for"))

    def _call(self, head: Head, found: Found, peer: str, carried: dict[str, str]) -> Call:
        endpoint, headers = found.endpoint, head.headers
        takes_body = head.method not in ("GET", "HEAD")
        if takes_body and head.length != 0:
            _check_type(headers.get(b"content-type"))
        defaults = read_query(head.query)
        identity = self._identity(endpoint, headers.get(b"authorization"), defaults)
        if endpoint.headers:
            defaults.pop(endpoint.headers.get("authorization", ""), None)  # a secret, which no query may carry
            defaults = {**header_fields(endpoint.headers, headers), **defaults}
        context = Context(
            "http",
            self.client(headers, peer),
            RequestId(carried["X-Request-ID"]),
            identity,
            headers.get(b"user-agent", b"").decode("latin-1"),
        )
        return Call(endpoint, context, found.fields, defaults, carried, takes_body)

    def _identity(self, endpoint: Endpoint, header: bytes | None, query: Mapping[str, object]) -> Identity | None:
        """By the `Authorization` header alone: queries stand in histories and in other servers' logs (only a socket's handshake,
        which browsers cannot give a header, may have a token there).

        Raises: NotAuthenticated, unless the row is public: who logs in with an expired token at hand is just a stranger.
        """
        try:
            if header is not None:
                return self._authenticate(bearer(header))
        except NotAuthenticated:
            if endpoint.permission != "public":
                raise
        if endpoint.permission != "public":
            if "token" in query or "access_token" in query:
                raise NotAuthenticated("A token in the query opens sockets only; send it as `Authorization: Bearer <token>`")
            raise NotAuthenticated
        return None

    def _failed(self, headers: AnswerHeaders) -> Reply:
        """Call it where the exception is handled: the log line carries it."""
        self.unexpected += 1
        _log.exception("unexpected", request_id=headers["X-Request-ID"])
        error = SecureConnectError("Internal error")
        self._count(error)
        return self._reply(failure(error), headers)  # not by `refuse`, which would come here again

    def _count(self, error: SecureConnectError) -> None:
        self.refused[error.word] = self.refused.get(error.word, 0) + 1

    def _reply(self, response: Response, carried: AnswerHeaders) -> Reply:
        headers = {"Content-Type": response.content_type, **carried}
        for name, value in response.headers.items():
            headers[name] = value.translate(_CONTROLS)
        if response.status == 204:
            return Reply(204, b"", headers)
        body = http_body(response, RequestId(carried["X-Request-ID"]), self._clock.now_us())
        return Reply(response.status, body, headers)


def read_object(body: bytes) -> dict[str, object]:
    """A JSON object's fields. Raises: BadRequest for anything else, or a text with a NUL."""
    try:
        value = _decode_json(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"The body is not JSON: {reason}", details={"field": "body", "reason": "json"}) from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object", details={"field": "body", "reason": "object"})
    if NUL in body:
        refuse_nul(body, value)
    return value


def _check_type(content_type: bytes | None) -> None:
    if content_type is not None and not _JSON.fullmatch(content_type):
        raise BadRequest(
            "Send JSON, with `Content-Type: application/json` or none", details={"field": "Content-Type", "reason": "media_type"}
        )


def _options(path: bytes, found: WrongMethod | None, carried: dict[str, str]) -> Reply:
    """A preflight is answered for any path: whether the request itself has an address is that request's answer."""
    if "Access-Control-Allow-Methods" not in carried:
        if isinstance(found, WrongMethod):
            carried["Allow"] = ", ".join(found.allow)
        elif path == b"*":
            carried["Allow"] = ", ".join(METHODS)
        else:
            raise NotFound("There is nothing at this address")
    return Reply(204, b"", carried)
