"""Which part of a request is using its time, so that a deadline can name it.

Dispatch opens a `Trail` per request; whoever is about to wait says `at("log.append")`. The word stays until the next one.
"""

from __future__ import annotations

from contextvars import ContextVar


class Trail:
    """The present stage of one request."""

    __slots__ = ("stage",)

    def __init__(self, stage: str) -> None:
        self.stage = stage


_trail: ContextVar[Trail | None] = ContextVar("secureconnect_trail", default=None)


def begin(stage: str) -> Trail:
    """Start the trail of the request that this task now serves."""
    trail = Trail(stage)
    _trail.set(trail)
    return trail


def at(stage: str) -> None:
    """Say what is about to use time: `sql`, `log.append`, `log.read`, `room`, `hash`, … No effect outside a request."""
    trail = _trail.get()
    if trail is not None:
        trail.stage = stage
