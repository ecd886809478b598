"""What the log says of sockets that end: each at debug, and what an operator should know of as warnings, never a flood."""

from __future__ import annotations

from typing import Final

import structlog
import trio

NOTABLE: Final = frozenset({"slow_consumer", "stalled", "overload", "internal", "unanswered"})
"""Reasons that are ours, or a client's that loses time by it; all others are the daily coming and going."""
PERIOD_S: Final = 10.0
"""One line per notable reason in so long; it says how many it stands for."""

_log = structlog.get_logger("secureconnect.websocket")


class Closings:
    """Tells the log."""

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def note(self, reason: str, *, connection_id: str) -> None:
        """A socket has ended."""
        _log.debug("socket_closed", reason=reason, connection_id=connection_id)
        if reason not in NOTABLE:
            return
        now_s = trio.current_time()
        self._untold[reason] = self._untold.get(reason, 0) + 1
        if now_s >= self._told_s.get(reason, -PERIOD_S) + PERIOD_S:
            self._told_s[reason] = now_s
            _log.warning("sockets_closed", reason=reason, count=self._untold.pop(reason), connection_id=connection_id)
