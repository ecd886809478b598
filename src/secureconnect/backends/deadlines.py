"""The bound on store calls: whatever a store stands on, each call ends within the time of failure-policy.md §1 or is abandoned.

A node puts every store that it is given behind this door, so that a backend which sets no deadline itself (memory, a driver to
come) can keep no request. Two kinds of calls pass as they are, because their one caller sets a shorter bound and says itself what
its end means: appends (`appends.Deadlines.attempt_s`) and the table of digests (the hub).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import trio

from secureconnect.backends.bundle import Bundle
from secureconnect.errors import DeadlineExceeded, OutcomeUnknown

T = TypeVar("T")

WRITES: Final[Mapping[str, frozenset[str]]] = {
    "users": frozenset({"add", "replace_password_hash"}),
    "sessions": frozenset({"begin", "rotate", "end", "purge"}),
    "revocations": frozenset(),
    "locks": frozenset({"add", "purge"}),
    "conversations": frozenset({"create", "change", "delete", "join", "leave", "set_role"}),
    "directory": frozenset(),
    "log": frozenset(),
    "announcements": frozenset({"show", "done"}),
}
"""Methods by store of which an abandoned call may have been done, or may still be."""
PASSED: Final[Mapping[str, frozenset[str]]] = {"log": frozenset({"append"})}
"""Methods that are not bounded here."""


def within_deadline(bundle: Bundle, deadline_s: float) -> Bundle:
    """The same stores, each call of which ends after `deadline_s` at the latest, its waiting and retries included.

    An abandoned read raises DeadlineExceeded, an abandoned write OutcomeUnknown. Cancellation: as the store's own.
    """
    bounded = {
        name: _Bounded(getattr(bundle, name), deadline_s, writes=writes, passed=PASSED.get(name, frozenset()))
        for name, writes in WRITES.items()
    }
    return replace(bundle, **cast("dict[str, Any]", bounded))  # each stands for a store of its own protocol


class _Bounded:
    """A store behind the door. Each method is made at its first use and kept."""

    def __init__(self, store: object, deadline_s: float, *, writes: frozenset[str], passed: frozenset[str]) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._writes = writes
        self._passed = passed

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._store, name)
        if name not in self._passed:
            method = _bounded(method, self._deadline_s, OutcomeUnknown if name in self._writes else DeadlineExceeded)
        self.__dict__[name] = method
        return method


def _bounded(
    method: Callable[..., Awaitable[T]], deadline_s: float, late: type[DeadlineExceeded] | type[OutcomeUnknown]
) -> Callable[..., Awaitable[T]]:
    async def call(*args: object, **named: object) -> T:
        with trio.move_on_after(deadline_s):
            return await method(*args, **named)
        raise late(f"The database did not answer within {deadline_s:g} s", details={"dependency": "sql"})

    return call
