"""When to try again, pure: full jitter, unless the server dictated a time (interface.md §5, native clients)."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S = 1.0
LONGEST_S = 30.0
QUICK_S = 1.0
"""A poll that is answered sooner did not wait."""
IDLE_PAUSE_S = 0.25
"""After the second quick answer without news in a row; doubles with each further one."""


class Backoff:
    """The first try after a loss comes within 0–1 s, then 0–2, 0–4 … up to 0–30 s."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives a uniform number in [0, 1)."""
        self._random = random
        self.failures = 0

    def next_s(self, dictated_s: float | None = None) -> float:
        """Seconds until the next try; counts it as one more that may fail."""
        bound = min(LONGEST_S, FIRST_S * float(2 ** min(self.failures, 10)))
        self.failures += 1
        if dictated_s is not None:
            return dictated_s
        return bound * self._random()

    def reset(self) -> None:
        """A connection was made and is alive."""
        self.failures = 0


class PollPace:
    """Polls follow one another at once, unless answers come at once and bring nothing, why ever: then more and more slowly."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._idle = 0

    def next_s(self, *, took_s: float, news: bool) -> float:
        """Seconds until the next poll. One idle answer is free: the first poll asks not to wait."""
        self._idle = 0 if news or took_s >= QUICK_S else self._idle + 1
        if self._idle < 2:
            return 0.0
        bound = min(LONGEST_S, IDLE_PAUSE_S * float(2 ** min(self._idle - 2, 10)))
        return min(LONGEST_S, bound * (1.0 + self._random()))
