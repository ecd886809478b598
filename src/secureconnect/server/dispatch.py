"""From a request to its answer, whatever brought it: rights, parameters, deadline, envelope's content. Knows no framework.

The order, and why: the row is known first (its rate class and deadline are named there); then who asks, because a stranger's
parameters are not worth reading; then the parameters, which may say how long it takes; then the one cancel scope that bounds
everything below it; in it the rate limit, which may have to ask another machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import structlog
import trio

from secureconnect.errors import BadRequest, NotAuthenticated, RateLimited, RequestTimeout, SecureConnectError
from secureconnect.observe import stage
from secureconnect.server.endpoints import Answer, Context, Document, Endpoint
from secureconnect.server.rate_limits import RateLimiter, limit_headers
from secureconnect.server.wire import Response, encode

POLL_GRACE_S = 5.0
"""A poll may take its own wait and this much more (interface.md §9, deadlines)."""

NO_HEADERS: Mapping[str, str] = {}

_log = structlog.get_logger("secureconnect.dispatch")
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")


@dataclass(slots=True)
class Counters:
    """Totals since the start."""

    requests: int = 0
    unexpected: int = 0
    timeouts: int = 0


class Dispatcher:
    """Runs operations. One per server; any number of calls at once."""

    def __init__(
        self,
        *,
        request_deadline_s: float = 30.0,
        limiter: RateLimiter | None = None,
        observe: Callable[[Endpoint, Context, Response, float], None] | None = None,
    ) -> None:
        """`limiter` None: nothing is limited. `observe` is told of every answer with its seconds, for metrics and the log."""
        self._request_deadline_s = request_deadline_s
        self._limiter = limiter
        self._observe = observe
        self.counters = Counters()

    async def call(self, endpoint: Endpoint, values: Mapping[str, object], context: Context) -> Response:
        """Serve one request. Never raises but on cancellation: every failure is an answer.

        Cancellation: what the operation had begun may have happened; nothing is half done (the append pipeline owns commits).
        """
        began_s = trio.current_time()
        self.counters.requests += 1
        response = await self._guarded(endpoint, values, context)
        if self._observe is not None:
            self._observe(endpoint, context, response, trio.current_time() - began_s)
        return response

    async def _guarded(self, endpoint: Endpoint, values: Mapping[str, object], context: Context) -> Response:
        standing: dict[str, str] = {}
        try:
            if endpoint.permission != "public" and context.identity is None:
                raise NotAuthenticated
            params = read_params(endpoint, values)
            return await self._bounded(endpoint, params, context, standing)
        except SecureConnectError as error:
            if error.status >= 500:
                _log.warning("refused", operation=endpoint.name, code=error.word, error=str(error), request_id=context.request_id)
            return failure(error, standing)
        except Exception:  # noqa: BLE001  # the door of one request: a bug answers 500, is counted, and ends nobody else
            self.counters.unexpected += 1
            _log.exception("unexpected", operation=endpoint.name, request_id=context.request_id)
            return failure(SecureConnectError("Internal error"), standing)

    async def _bounded(self, endpoint: Endpoint, params: msgspec.Struct, context: Context, standing: dict[str, str]) -> Response:
        """`standing` gets the headers that the answer carries, whatever it will be."""
        trail = stage.begin("handler")
        deadline_s = self._deadline_s(endpoint, params)
        with trio.move_on_after(deadline_s) as scope:
            if self._limiter is not None:
                # What anyone may ask is counted by address: accounts are free, and each would bring another bucket of logins.
                who = None if endpoint.permission == "public" else context.identity
                verdict = await self._limiter.count(endpoint.rate, who, context.peer)
                if verdict is not None and context.via == "http":
                    standing |= self._limiter.headers(verdict)
            return success(endpoint, await endpoint.call(context, params), standing)
        assert scope.cancelled_caught
        self.counters.timeouts += 1
        raise RequestTimeout(
            f"The request did not end within {deadline_s:g} s",
            details={"stage": trail.stage, "deadline_s": deadline_s},
        )

    def _deadline_s(self, endpoint: Endpoint, params: msgspec.Struct) -> float:
        if endpoint.deadline == "stream":
            return math.inf  # streams are bounded by their progress, where their bytes are written
        if endpoint.deadline == "poll":
            return float(getattr(params, "wait_s", 0.0)) + POLL_GRACE_S
        return self._request_deadline_s


def read_params(endpoint: Endpoint, values: Mapping[str, object]) -> msgspec.Struct:
    """Raises: BadRequest with `details.field` for what is missing or wrong. Unknown fields are ignored."""
    if endpoint.aliases and any(alias in values for alias in endpoint.aliases):
        named = dict(values)
        for alias, name in endpoint.aliases.items():
            if alias in named and named.get(name) is None:
                named[name] = named[alias]
        values = named
    try:
        return msgspec.convert(values, endpoint.params, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None


def invalid(text: str) -> BadRequest:
    """msgspec's sentence as our error: the field by its path, the reason in words."""
    place, missing = _PLACE.search(text), _MISSING.search(text)
    inside = place.group(1) if place else ""
    reason = _PLACE.sub("", text)
    name = ".".join(part for part in (inside, missing.group(1) if missing else "") if part)
    if not name:
        return BadRequest(reason, details={"reason": reason})
    return BadRequest(f"{name}: {reason}", details={"field": name, "reason": reason})


def success(endpoint: Endpoint, result: object, standing: Mapping[str, str] = NO_HEADERS) -> Response:
    if isinstance(result, Document):
        assert endpoint.bare, "only bare rows answer documents"
        return Response(result.status, document=result.body, content_type=result.content_type, headers=standing)
    answer = result if isinstance(result, Answer) else Answer(result)
    data = None if answer.data is None else encode(answer.data)
    headers = {**standing, **answer.headers} if answer.headers else standing
    return Response(answer.status or endpoint.status, data=data, headers=headers, meta=answer.meta)


def failure(error: SecureConnectError, standing: Mapping[str, str] = NO_HEADERS) -> Response:
    """The answer to an error; `Retry-After` is in whole seconds, rounded up (RFC 9110 §10.2.3)."""
    headers = dict(standing)
    if isinstance(error, RateLimited):
        headers |= limit_headers(error.details)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(error.status, error=error, headers=headers)
