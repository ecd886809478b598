"""Figures for Prometheus: names of the original where they exist, labels that are bounded, read only when somebody asks.

The parts of the server count in plain integers; `watch` binds a name to a callable that reads them at scrape time. Only
requests are counted here, because they need a histogram. Names that nobody watches are not shown: an absent figure is true,
a zero might not be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper edges: fine where embedded requests end, coarse to the request deadline (30 s)."""
LABEL_SETS_MAX = 2000
"""Combinations of labels of one figure; more are a bug in whoever names them, and are counted together as `other`."""

Value: TypeAlias = float | Mapping[str, float]
"""A figure, or one for each value of its single label."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A known name. `label`: its one label, whose values are bounded, or none."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    label: str = ""


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        # Names of the original (contract.md §11.5)
        Figure("http_requests_in_flight", "gauge", "Requests being served."),
        Figure("request_timeout_total", "counter", "Requests that met their deadline (504)."),
        Figure("websocket_connections", "gauge", "Open sockets."),
        Figure("chat_websocket_connection_total", "counter", "Handshakes by outcome.", "status"),
        Figure("chat_websocket_disconnection_total", "counter", "Closed sockets by reason.", "reason"),
        Figure("chat_websocket_messages_total", "counter", "Frames in and out.", "direction"),
        Figure("chat_message_created_total", "counter", "Messages accepted for sending."),
        Figure("chat_message_persisted_total", "counter", "Messages stored."),
        Figure("chat_message_published_total", "counter", "Events given to subscribers' channels."),
        Figure("chat_client_message_dropped_total", "counter", "Deliveries dropped, by cause.", "cause"),
        Figure("chat_broadcast_channel_length", "gauge", "Messages waiting in all channels' queues."),
        Figure("chat_client_send_channel_length", "gauge", "Messages waiting for all clients."),
        Figure("auth_login_success_total", "counter", "Logins."),
        Figure("auth_login_failed_total", "counter", "Logins with a wrong e-mail address or password."),
        Figure("auth_account_locked_total", "counter", "Accounts locked after too many failed logins."),
        Figure("auth_logout_total", "counter", "Logouts."),
        Figure("auth_refresh_token_success_total", "counter", "Refreshed tokens."),
        Figure("auth_refresh_token_invalid_total", "counter", "Refresh tokens that were refused, reuse among them."),
        Figure("db_connections_active", "gauge", "Connections to the database."),
        Figure("db_connections_idle", "gauge", "Those that wait for a call."),
        Figure("db_connections_in_use", "gauge", "Those that serve one."),
        Figure("redis_available", "gauge", "1 while its write probe is answered."),
        Figure("redis_degraded_mode", "gauge", "1 while it is why any feature is degraded."),
        Figure("redis_health_check_total", "counter", "Write probes by outcome.", "status"),
        Figure("redis_unavailable_total", "counter", "Calls that it did not serve; each had another answer."),
        Figure("chat_redis_subscription_active", "gauge", "1 while the subscriber's connection stands."),
        Figure("chat_redis_publish_error_total", "counter", "Publishes that it did not take."),
        # Own
        Figure("secureconnect_http_connections", "gauge", "Open HTTP connections; sockets are counted apart."),
        Figure("secureconnect_http_connections_refused_total", "counter", "Connections above HTTP_CONNECTIONS_MAX."),
        Figure("secureconnect_http_refused_total", "counter", "Requests answered before any operation, by error code.", "code"),
        Figure("secureconnect_http_malformed_total", "counter", "Bytes that were no request, by the rule they broke.", "reason"),
        Figure("secureconnect_rate_limited_total", "counter", "Requests refused by a rate limit, by class.", "class"),
        Figure("secureconnect_rate_limits_local_total", "counter", "Requests that only this node counted: Redis was away."),
        Figure("secureconnect_unexpected_exceptions_total", "counter", "Exceptions that are bugs; each answered 500."),
        Figure("secureconnect_ledger_published_total", "counter", "Deliveries begun: one event to one connection."),
        Figure("secureconnect_ledger_delivered_total", "counter", "Deliveries handed to the kernel."),
        Figure("secureconnect_ledger_pending", "gauge", "Deliveries under way."),
        Figure("secureconnect_ledger_replayed_total", "counter", "Entries replayed to resuming sockets."),
        Figure("secureconnect_ledger_polled_total", "counter", "Events handed to pollers."),
        Figure("secureconnect_queue_depth", "gauge", "What waits in each bounded queue.", "queue"),
        Figure("secureconnect_queue_full_total", "counter", "How often each bounded queue was full.", "queue"),
        Figure("secureconnect_tasks", "gauge", "Tasks of the event loop."),
        Figure("secureconnect_event_loop_lag_seconds", "gauge", "How late the event loop woke last."),
        Figure("secureconnect_degraded", "gauge", "1 for each feature that is degraded.", "feature"),
        Figure("secureconnect_dependency_up", "gauge", "1 while its write probe is answered.", "dependency"),
        Figure("secureconnect_breaker_state", "gauge", "0 closed, 1 half open, 2 open.", "dependency"),
        Figure("secureconnect_breaker_opened_total", "counter", "How often each breaker opened.", "dependency"),
        Figure("secureconnect_breaker_refused_total", "counter", "Calls refused by an open breaker.", "dependency"),
        Figure("secureconnect_bulkhead_in_use", "gauge", "Calls under way.", "dependency"),
        Figure("secureconnect_bulkhead_waiting", "gauge", "Calls that wait for a permit.", "dependency"),
        Figure("secureconnect_bulkhead_refused_total", "counter", "Calls that got no permit.", "dependency"),
        Figure("secureconnect_retries_total", "counter", "Tries after a failed one.", "dependency"),
        Figure("secureconnect_retries_refused_total", "counter", "Retries that the budget did not allow.", "dependency"),
        Figure("secureconnect_reruns_total", "counter", "Transactions run again after a lost serialization.", "dependency"),
        Figure("secureconnect_attempts_expired_total", "counter", "Tries that met their deadline.", "dependency"),
        Figure("secureconnect_attempts_cut_short_total", "counter", "Tries that met their caller's deadline.", "dependency"),
        Figure("secureconnect_log_lines_lost_total", "counter", "Log lines that could not be written."),
    )
}


@dataclass(slots=True)
class _Timing:
    """A histogram's cells, not cumulative; the last one is everything above the highest edge."""

    cells: list[int]
    sum_s: float = 0.0


class Metrics:
    """All figures of one process, in a registry of their own. Not thread-safe: the event loop writes and renders."""

    def __init__(self, *, service: str = "secureconnect", process: bool = True) -> None:
        """`process`: memory, descriptors and CPU of this process too; off for servers that share one."""
        self._service = service
        self._requests: dict[tuple[str, str, str], int] = {}
        self._timings: dict[tuple[str, str], _Timing] = {}
        self._watched: dict[str, Callable[[], Value]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Scrape(self))
        if process:
            ProcessCollector(registry=self._registry)
            GCCollector(registry=self._registry)

    def answered(self, *, method: str, endpoint: str, status: int, seconds: float) -> None:
        """One request was answered. `endpoint` is the row's path, never the address as it came: that would be unbounded."""
        key, pair = (method, endpoint, str(status)), (method, endpoint)
        if len(self._requests) >= LABEL_SETS_MAX and key not in self._requests:
            key, pair = ("other", "other", "other"), ("other", "other")
        self._requests[key] = self._requests.get(key, 0) + 1
        timing = self._timings.get(pair)
        if timing is None:
            timing = self._timings[pair] = _Timing([0] * (len(BUCKETS_S) + 1))
        timing.cells[bisect_left(BUCKETS_S, seconds)] += 1
        timing.sum_s += seconds

    def watch(self, name: str, read: Callable[[], Value]) -> None:
        """Show `name` (of `FIGURES`) as what `read` answers at each scrape: a number, or numbers by the figure's label."""
        assert name in FIGURES, f"unknown figure {name}: declare it in FIGURES"
        self._watched[name] = read

    def render(self) -> bytes:
        """The page of `/metrics`, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def families(self) -> Iterator[Metric]:
        """What a scrape finds, without the figures of the process itself."""
        yield self._request_counts()
        yield self._request_timings()
        for name, read in self._watched.items():
            yield _family(FIGURES[name], read())

    def _request_counts(self) -> Metric:
        labels = ("method", "endpoint", "status", "service")
        family = CounterMetricFamily("http_requests_total", "Requests answered.", labels=labels)
        for (method, endpoint, status), count in self._requests.items():
            family.add_metric((method, endpoint, status, self._service), count)
        return family

    def _request_timings(self) -> Metric:
        labels = ("method", "endpoint", "service")
        family = HistogramMetricFamily("http_request_duration_seconds", "Seconds from request to answer.", labels=labels)
        for (method, endpoint), timing in self._timings.items():
            family.add_metric((method, endpoint, self._service), list(_cumulative(timing.cells)), timing.sum_s)
        return family


def _cumulative(cells: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Prometheus buckets count everything up to their edge."""
    total = 0
    for edge, count in zip((*map(str, BUCKETS_S), "+Inf"), cells, strict=True):
        total += count
        yield edge, total


def _family(figure: Figure, value: Value) -> Metric:
    make = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
    if not figure.label:
        assert not isinstance(value, Mapping), f"{figure.name} has no label"
        return make(figure.name, figure.help, value=value)
    assert isinstance(value, Mapping), f"{figure.name} is read by its label"
    family = make(figure.name, figure.help, labels=(figure.label,))
    for label, number in list(value.items())[:LABEL_SETS_MAX]:
        family.add_metric((label,), number)
    return family


class _Scrape(Collector):
    """Hands the registry what `Metrics` holds at the moment it asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not read figures that are not bound yet."""
        return ()
