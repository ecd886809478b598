"""Health, figures and the schema: bare documents for machines, asked for without a login."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from secureconnect.errors import NotAuthenticated, SecureConnectError
from secureconnect.observe.metrics import CONTENT_TYPE
from secureconnect.server import openapi
from secureconnect.server.endpoints import Context, Document, Endpoint, Handler, NoParams
from secureconnect.server.wire import encode

Answered = tuple[int, Mapping[str, object]]
"""An HTTP status and what to show."""


class Health(Protocol):
    """What a node tells of itself."""

    def live(self) -> Answered:
        """The event loop turns."""
        ...

    def ready(self) -> Answered:
        """Send new traffic here?"""
        ...

    def graph(self) -> Answered:
        """Everything it needs, and how that is."""
        ...

    def summary(self) -> Answered:
        """In the form of the original's `/health`."""
        ...

    def metrics(self) -> bytes:
        """Prometheus' text format."""
        ...


class MetricsParams(msgspec.Struct):
    """`authorization`: the header, `Bearer <METRICS_TOKEN>`."""

    authorization: str = ""


class StatusObject(msgspec.Struct):
    """`alive`; `ready`, `starting`, `draining`, or `cut_off`: this node alone lacks what it needs."""

    status: str


class SummaryObject(msgspec.Struct):
    """`status`: `healthy`, `degraded` or `unhealthy`. `dependencies`: the state of each. `degraded`: features."""

    status: str
    service: str
    timestamp: str
    dependencies: dict[str, str]
    degraded: list[str]


class DependencyObject(msgspec.Struct):
    """`state`: `unknown`, `up`, `slow` or `down`. `error`: why, when it is not well."""

    state: str
    since: str
    latency_ms: float | None
    breaker: str
    error: str | UnsetType = UNSET


class ProcessObject(msgspec.Struct):
    """Now: tasks of the event loop, open sockets, file descriptors, resident memory."""

    tasks: int
    sockets: int
    fds: int
    rss_bytes: int


class GraphObject(msgspec.Struct):
    """The node with everything it needs. `receipts`: of the last outages, what became of what this node decided alone."""

    status: str
    node: str
    version: str
    uptime_s: float
    dependencies: dict[str, DependencyObject]
    queues: dict[str, dict[str, object]]
    degraded: dict[str, object]
    ledger: dict[str, object]
    receipts: list[dict[str, object]]
    process: ProcessObject


def endpoints(health: Health, table: Callable[[], Sequence[Endpoint]], *, metrics_token: str | None = None) -> list[Endpoint]:
    """`table`: every operation there is, for the schema, which is made once. `metrics_token`: who scrapes must bring it."""
    schema: list[bytes] = []

    async def live(context: Context, params: NoParams) -> Document:
        return _shown(health.live())

    async def ready(context: Context, params: NoParams) -> Document:
        return _shown(health.ready())

    async def graph(context: Context, params: NoParams) -> Document:
        return _shown(health.graph())

    async def summary(context: Context, params: NoParams) -> Document:
        return _shown(health.summary())

    async def metrics(context: Context, params: MetricsParams) -> Document:
        if metrics_token is not None:
            scheme, _, token = params.authorization.partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), metrics_token.encode()):
                raise NotAuthenticated("METRICS_TOKEN is required as a bearer token")
        return Document(health.metrics(), CONTENT_TYPE)

    async def describe(context: Context, params: NoParams) -> Document:
        if not schema:
            schema.append(openapi.document(table()))
        return Document(schema[0])

    from_header = {"authorization": "authorization"}
    return [
        _row("system.livez", "/livez", live, "The event loop turns", result=StatusObject),
        _row("system.readyz", "/readyz", ready, "Send new traffic here?", result=StatusObject),
        _row("system.healthz", "/healthz", graph, "The dependency graph", result=GraphObject),
        _row("system.health", "/health", summary, "Health, in the original's form", result=SummaryObject),
        _row(
            "system.metrics",
            "/metrics",
            metrics,
            "Figures for Prometheus",
            result=str,
            errors=(NotAuthenticated,),
            params=MetricsParams,
            headers=from_header,
        ),
        _row("system.openapi", "/openapi.json", describe, "This schema", result=dict[str, object], also=(("GET", "/swagger"),)),
    ]


def _row(
    name: str,
    path: str,
    call: Handler,
    summary: str,
    *,
    result: object,
    errors: tuple[type[SecureConnectError], ...] = (),
    params: type[msgspec.Struct] = NoParams,
    headers: Mapping[str, str] | None = None,
    also: tuple[tuple[str, str], ...] = (),
) -> Endpoint:
    return Endpoint(
        name=name,
        method="GET",
        path=path,
        params=params,
        call=call,
        result=result,
        errors=errors,
        permission="public",
        rate="none",
        bare=True,
        socket=False,
        headers=headers or {},
        also=also,
        summary=summary,
    )


def _shown(answered: Answered) -> Document:
    status, shown = answered
    return Document(encode(shown), status=status)
