"""Which features are degraded, since when, why, and what still works: one place that writers tell and faces read.

Fallbacks and probes write; `/healthz`, the socket's `degraded` event and the `X-Degraded` header read (interface.md §5, §7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FEATURES = (
    "live_delivery", "history", "send", "search", "presence", "typing", "signalling", "calls", "login", "refresh", "lockout",
    "rate_limits", "push", "email", "files", "ai",
)  # fmt: skip
"""The names clients know (interface.md §5)."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """One feature's trouble. `cause` is a dependency's name; `works` says in words what still does; `since_us` is wall time."""

    since_us: int
    cause: str
    works: str


class FeatureStatus:
    """The present state, for one event loop. Listeners are told of each change, in the order of the changes."""

    def __init__(self) -> None:
        self._degraded: dict[str, Degraded] = {}
        self._listeners: list[Callable[[Mapping[str, Degraded]], None]] = []

    @property
    def degraded(self) -> Mapping[str, Degraded]:
        """By feature; empty when all is well. A copy: it does not change under the reader."""
        return dict(self._degraded)

    def listen(self, listener: Callable[[Mapping[str, Degraded]], None]) -> None:
        """`listener` gets the whole state after each change. It must not block or raise."""
        self._listeners.append(listener)

    def degrade(self, feature: str, *, cause: str, works: str, since_us: int) -> None:
        """`feature` is in trouble. Said again for the same cause, the first `since_us` stays and nobody is told."""
        assert feature in FEATURES, f"unknown feature {feature}"
        known = self._degraded.get(feature)
        if known is not None and (known.cause, known.works) == (cause, works):
            return
        began_us = known.since_us if known is not None else since_us
        self._degraded[feature] = Degraded(began_us, cause, works)
        self._tell()

    def recover(self, feature: str) -> None:
        """`feature` is well again; no effect when it was."""
        if self._degraded.pop(feature, None) is not None:
            self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.degraded)
