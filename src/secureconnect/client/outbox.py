"""What the user sent and the server has not answered yet, pure: kept in order, under one key each, until the outcome is known.

A send is given its `client_message_id` once; every retry, on whichever connection and node, carries the same one, so the server
stores it once. Sends of one conversation leave in the order in which they were made: the next waits for the answer of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from secureconnect.client.errors import ClientError, ServerRefused

OUTBOX_MAX = 1_000
"""Sends that may wait; beyond that `add` refuses, so that a client that is offline for days says so."""


@dataclass(eq=False, slots=True)
class Pending:
    """One send. `done` is set when `result` or `error` is."""

    params: Mapping[str, Any]
    done: anyio.Event = field(default_factory=anyio.Event)
    result: Mapping[str, Any] | None = None
    error: ClientError | None = None
    not_before: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """What the server stores once: a `client_message_id` of the sender in a conversation."""
        return str(self.params["conversation_id"]), str(self.params["client_message_id"])


class OutboxFull(ClientError):
    """Too many sends wait for a connection."""


class Outbox:
    """First in, first out per conversation; different conversations do not wait for one another."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Pending] = {}
        self._under_way: dict[str, Pending] = {}  # by conversation

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, params: Mapping[str, Any]) -> Pending:
        """The same key while its outcome is unknown gives the same send. Raises: OutboxFull."""
        pending = Pending(params)
        if (known := self._waiting.get(pending.key)) is not None:
            return known
        if len(self._waiting) >= OUTBOX_MAX:
            raise OutboxFull(f"{OUTBOX_MAX} messages wait to be sent")
        self._waiting[pending.key] = pending
        return pending

    def next(self, now: float) -> Pending | None:
        """The next send that may leave; it is under way until `answered`, `refused` or `lost`."""
        held: dict[str, None] = {}
        for pending in self._waiting.values():
            conversation = str(pending.params["conversation_id"])
            if conversation in self._under_way or conversation in held:
                continue
            if pending.not_before > now:
                held[conversation] = None
                continue
            self._under_way[conversation] = pending
            return pending
        return None

    def wake_at(self, now: float) -> float | None:
        """When the next postponed send becomes due, after `now`; None when none will: what is due waits for something else."""
        return min((p.not_before for p in self._waiting.values() if p.not_before > now), default=None)

    def answered(self, pending: Pending, result: Mapping[str, Any]) -> None:
        pending.result = result
        self._settle(pending)

    def refused(self, pending: Pending, error: ServerRefused, now: float) -> None:
        """A retryable refusal waits and is tried again; any other is the sender's to see."""
        self._back(pending)
        if error.retryable:
            pending.not_before = now + (error.retry_after_s or 1.0)
            return
        pending.error = error
        self._settle(pending)

    def lost(self, pending: Pending, *, not_before: float = 0.0) -> None:
        """Its answer was lost: it goes out again, under the same key."""
        self._back(pending)
        pending.not_before = not_before

    def fail_all(self, error: ClientError) -> None:
        for pending in list(self._waiting.values()):
            pending.error = error
            self._settle(pending)

    def _is_under_way(self, pending: Pending) -> bool:
        return self._under_way.get(str(pending.params["conversation_id"])) is pending

    def _back(self, pending: Pending) -> None:
        if self._is_under_way(pending):
            del self._under_way[str(pending.params["conversation_id"])]

    def _settle(self, pending: Pending) -> None:
        self._back(pending)
        self._waiting.pop(pending.key, None)
        pending.done.set()
