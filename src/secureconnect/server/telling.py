"""What a node tells of itself in figures: its queues for health, and all that `/metrics` watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from secureconnect.config import Settings
from secureconnect.hub import Hub
from secureconnect.observe.metrics import Metrics
from secureconnect.observe.status import FeatureStatus
from secureconnect.resilience import Stack, figures
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.exchange import Exchange
from secureconnect.server.front import Front
from secureconnect.server.health import Dependency
from secureconnect.server.polling import Polls
from secureconnect.server.websocket import Gateway


@dataclass(frozen=True, slots=True)
class Telling:
    """The parts that count. `queues_below`: the lines in front of the stores."""

    settings: Settings
    hub: Hub
    dispatcher: Dispatcher
    exchange: Exchange
    front: Front
    gateway: Gateway
    polls: Polls
    status: FeatureStatus
    dependencies: Mapping[str, Dependency]
    queues_below: Callable[[], Mapping[str, Mapping[str, int]]]

    def queues(self) -> Mapping[str, object]:
        """Every bounded queue: `{name: {depth, bound, full_total}}`."""
        hub, settings = self.hub.statistics(), self.settings
        own = {
            "hub_channels": {"depth": hub.queued_max, "bound": hub.queue_max, "full_total": hub.full_total},
            "hub_bytes": {"depth": hub.queued_bytes, "bound": hub.queue_bytes_max, "full_total": hub.full_total},
            "sockets": {
                "depth": self.gateway.sockets,
                "bound": settings.sockets_max,
                "full_total": self.gateway.counters.refused,
            },
            "http_connections": {
                "depth": self.front.connections,
                "bound": settings.http_connections_max,
                "full_total": self.front.counters.refused,
            },
            "polls": {"depth": self.polls.waiting, "bound": settings.sockets_max, "full_total": 0},
        }
        return {**own, **self.queues_below()}

    def watch(self, metrics: Metrics, stacks: Mapping[str, Stack], *, unexpected: Callable[[], int]) -> None:
        """Let `/metrics` read them. `stacks` by dependency."""
        for name, read in figures(stacks).items():
            metrics.watch(name, read)
        watch, ledger, counters = metrics.watch, self.hub.ledger, self.dispatcher.counters
        watch("request_timeout_total", lambda: counters.timeouts)
        watch("secureconnect_unexpected_exceptions_total", unexpected)
        watch("secureconnect_http_connections", lambda: self.front.connections)
        watch("secureconnect_http_connections_refused_total", lambda: self.front.counters.refused)
        watch("secureconnect_http_refused_total", lambda: dict(self.exchange.refused))
        watch("secureconnect_http_malformed_total", lambda: dict(self.front.counters.malformed))
        watch("websocket_connections", lambda: self.gateway.sockets)
        watch("chat_websocket_disconnection_total", lambda: dict(self.gateway.counters.closed))
        watch("chat_client_message_dropped_total", lambda: dict(ledger.dropped))
        watch("secureconnect_ledger_published_total", lambda: ledger.published)
        watch("secureconnect_ledger_delivered_total", lambda: ledger.delivered)
        watch("secureconnect_ledger_pending", lambda: ledger.pending)
        watch("secureconnect_ledger_replayed_total", lambda: ledger.replayed)
        watch("secureconnect_ledger_polled_total", lambda: ledger.polled)
        watch("chat_broadcast_channel_length", lambda: self.hub.statistics().queued)
        watch("secureconnect_degraded", lambda: dict.fromkeys(self.status.degraded, 1))
        watch("secureconnect_dependency_up", lambda: {name: int(d.is_up) for name, d in self.dependencies.items()})
        self._watch_sql(metrics)
        if "redis" in self.dependencies:
            self._watch_redis(metrics, stacks["redis"])

    def _watch_sql(self, metrics: Metrics) -> None:
        pool = self.dependencies["sql"].pool
        if pool is not None:
            metrics.watch("db_connections_in_use", lambda: pool()["in_use"])
            metrics.watch("db_connections_idle", lambda: pool()["idle"])
            metrics.watch("db_connections_active", lambda: pool()["in_use"] + pool()["idle"])

    def _watch_redis(self, metrics: Metrics, stack: Stack) -> None:
        """By the original's names. It is in degraded mode while it is the cause of anything."""
        redis, board, hub = self.dependencies["redis"], self.status, self.hub
        metrics.watch("redis_available", lambda: int(redis.is_up))
        metrics.watch("redis_degraded_mode", lambda: int(any(one.cause == "redis" for one in board.degraded.values())))
        metrics.watch("redis_health_check_total", lambda: dict(redis.checks))
        metrics.watch("redis_unavailable_total", lambda: stack.refused_total)
        metrics.watch("chat_redis_subscription_active", lambda: int(hub.statistics().bus_connected))
        metrics.watch("chat_redis_publish_error_total", lambda: hub.statistics().bus_failed_total)
