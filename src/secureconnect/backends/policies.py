"""The guards of each technology with the numbers of the settings: `resilience.stack` says what stands around a call, and why."""

from __future__ import annotations

from dataclasses import replace

from secureconnect.config import Settings
from secureconnect.resilience import REDIS, SQL, BreakerLimits, Lane, Policy


def sql_policy(settings: Settings) -> Policy:
    """Lanes share the pool and the line in front of it as `SQL` says, whatever their size."""
    permits, waiting = settings.sql_pool_max, settings.sql_waiting_max
    lanes = tuple(
        Lane(
            lane.name,
            reserved=permits * lane.reserved // SQL.permits,
            waiting_max=max(1, waiting * lane.waiting_max // sum(one.waiting_max for one in SQL.lanes)),
            wait_s=min(
                settings.sql_background_wait_s if lane.name == "background" else settings.sql_wait_s, settings.store_deadline_s
            ),
        )
        for lane in SQL.lanes
    )
    policy = replace(SQL, permits=permits, lanes=lanes)
    return _numbered(policy, settings, total_s=settings.store_deadline_s, attempt_s=settings.store_attempt_deadline_s)


def redis_policy(settings: Settings) -> Policy:
    """Nobody waits in line for it: each of its callers has an answer without it."""
    wait_s = min(REDIS.lanes[0].wait_s, settings.redis_deadline_s)
    policy = replace(REDIS, lanes=tuple(replace(lane, wait_s=wait_s) for lane in REDIS.lanes))
    return _numbered(policy, settings, total_s=settings.redis_deadline_s, attempt_s=settings.redis_attempt_deadline_s)


def _numbered(policy: Policy, settings: Settings, *, total_s: float, attempt_s: float) -> Policy:
    return replace(
        policy,
        total_s=total_s,
        attempt_s=attempt_s,
        retry=replace(policy.retry, retries_max=settings.retries_max, reruns_max=settings.serialization_retries_max),
        retry_share=settings.retry_budget_percent / 100,
        breaker=BreakerLimits(
            failures_max=settings.breaker_failures_max,
            failure_share=settings.breaker_failure_percent / 100,
            calls_min=settings.breaker_calls_min,
            window_s=settings.breaker_window_s,
        ),
    )
