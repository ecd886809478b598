"""Figures say what was counted, under names that dashboards of the original know, and never grow without bound."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from secureconnect.observe.metrics import BUCKETS_S, FIGURES, LABEL_SETS_MAX, Metrics

ORIGINAL = {
    "http_requests_total", "http_request_duration_seconds", "request_timeout_total", "websocket_connections",
    "chat_message_created_total", "chat_message_persisted_total", "chat_message_published_total",
    "chat_client_message_dropped_total", "auth_login_success_total", "auth_login_failed_total", "auth_logout_total",
    "auth_refresh_token_success_total", "auth_refresh_token_invalid_total", "db_connections_active", "db_connections_idle",
    "db_connections_in_use", "redis_available", "redis_degraded_mode", "redis_health_check_total", "redis_unavailable_total",
    "chat_redis_subscription_active", "chat_redis_publish_error_total",
}  # fmt: skip


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for one in families for sample in one.samples}


def test_a_request_is_counted_by_method_endpoint_status_and_service() -> None:
    metrics = Metrics(service="chat", process=False)
    for status in (200, 200, 404):
        metrics.answered(method="GET", endpoint="/v1/messages", status=status, seconds=0.003)
    found = scraped(metrics)
    labels = (("endpoint", "/v1/messages"), ("method", "GET"), ("service", "chat"))
    assert found["http_requests_total", tuple(sorted((*labels, ("status", "200"))))] == 2
    assert found["http_requests_total", tuple(sorted((*labels, ("status", "404"))))] == 1
    assert found["http_request_duration_seconds_count", labels] == 3
    assert found["http_request_duration_seconds_sum", labels] == pytest.approx(0.009)


def test_durations_fall_into_cumulative_buckets_with_their_edge_inside() -> None:
    metrics = Metrics(process=False)
    for seconds in (0.0, 0.001, 0.0011, 31.0):
        metrics.answered(method="GET", endpoint="/", status=200, seconds=seconds)
    counts = {dict(labels)["le"]: value for (name, labels), value in scraped(metrics).items() if name.endswith("_bucket")}
    assert counts["0.001"] == 2
    assert counts["0.0025"] == 3
    assert counts["30.0"] == 3
    assert counts["+Inf"] == 4
    assert len(counts) == len(BUCKETS_S) + 1


def test_a_watched_figure_is_read_when_somebody_asks() -> None:
    metrics = Metrics(process=False)
    open_sockets = [3]
    metrics.watch("websocket_connections", lambda: open_sockets[0])
    assert scraped(metrics)["websocket_connections", ()] == 3
    open_sockets[0] = 4
    assert scraped(metrics)["websocket_connections", ()] == 4


def test_a_figure_with_a_label_is_read_by_its_values() -> None:
    metrics = Metrics(process=False)
    metrics.watch("chat_client_message_dropped_total", lambda: {"ephemeral": 2, "disconnected": 1})
    found = scraped(metrics)
    assert found["chat_client_message_dropped_total", (("cause", "ephemeral"),)] == 2
    assert found["chat_client_message_dropped_total", (("cause", "disconnected"),)] == 1


def test_what_nobody_watches_is_absent_rather_than_zero() -> None:
    assert "websocket_connections" not in Metrics(process=False).render().decode()


def test_a_name_that_is_not_declared_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError, match="declare it"):
        Metrics(process=False).watch("made_up_total", lambda: 1)


def test_the_names_of_the_original_are_kept_and_own_names_carry_the_prefix() -> None:
    assert ORIGINAL - set(FIGURES) == {"http_requests_total", "http_request_duration_seconds"}
    own = [
        name for name in FIGURES if not name.startswith(("http_", "request_", "websocket_", "chat_", "auth_", "db_", "redis_"))
    ]
    assert [name for name in own if not name.startswith("secureconnect_")] == []


def test_every_counter_ends_in_total_and_no_label_names_a_person_or_an_address() -> None:
    assert [f.name for f in FIGURES.values() if (f.kind == "counter") != f.name.endswith("_total")] == []
    assert {f.label for f in FIGURES.values()} & {
        "user",
        "user_id",
        "conversation_id",
        "call_id",
        "ip",
        "address",
        "peer",
    } == set()


def test_labels_are_bounded_whatever_calls_arrive() -> None:
    metrics = Metrics(process=False)
    for number in range(LABEL_SETS_MAX + 100):
        metrics.answered(method="GET", endpoint=f"/{number}", status=200, seconds=0.1)
    metrics.watch("chat_client_message_dropped_total", lambda: {f"cause{n}": 1.0 for n in range(LABEL_SETS_MAX + 100)})
    page = metrics.render().decode()
    assert len(re.findall(r"^http_requests_total\{", page, re.MULTILINE)) == LABEL_SETS_MAX + 1
    assert len(re.findall(r"^chat_client_message_dropped_total\{", page, re.MULTILINE)) == LABEL_SETS_MAX
    other = (("endpoint", "other"), ("method", "other"), ("service", "secureconnect"), ("status", "other"))
    assert scraped(metrics)["http_requests_total", other] == 100


def test_two_servers_in_one_process_do_not_share_figures() -> None:
    one, two = Metrics(process=False), Metrics(process=False)
    one.answered(method="GET", endpoint="/", status=200, seconds=0)
    assert scraped(two) == {}


def test_the_process_is_measured_too() -> None:
    assert "process_resident_memory_bytes" in Metrics().render().decode()
