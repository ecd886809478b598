"""How the faces say what is degraded: in `hello` and in an event on sockets, in a poll's answer, in health, in a header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from secureconnect.observe.status import Degraded
from secureconnect.server.session import event
from secureconnect.server.wire import rfc3339

HEADER: Final = "X-Degraded"

Board: TypeAlias = Mapping[str, Degraded]
"""By feature; empty when all is well."""


def shown(board: Board) -> dict[str, object]:
    """`{feature: {since, cause, works}}`."""
    return {name: {"since": rfc3339(one.since_us), "cause": one.cause, "works": one.works} for name, one in board.items()}


def notice(board: Board) -> bytes:
    """The event for sockets: the whole state, `{"features": {}}` when all is well."""
    return event("degraded", {"features": shown(board)})


def header(board: Board, features: Sequence[str]) -> str:
    """Of an answer that these features are about: `send;cause=sql, live_delivery;cause=sql`; "" when they are well."""
    return ", ".join(f"{name};cause={board[name].cause}" for name in features if name in board)
