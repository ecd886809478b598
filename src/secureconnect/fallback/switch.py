"""Is it away? Yes at the first sign, and no only when it has held well for a while: so what people are told does not flicker.

Theory. Who asks and is refused has the proof in hand, and so has the prober that found it down: from that moment it is away. A
good probe proves little, for a home that comes back often goes again. So it is back after `probes_min` good probes in a row that
lie `held_s` apart, with no refusal in between; one that falls into the row begins it anew.

Pure: the time is passed in, and must not run backwards.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How long it must hold. With a probe each second a home that came back to stay is so after 3 s, well within the 10 s in
    which people must be told (interface.md §7)."""

    probes_min: int = 3
    """Good probes in a row; at least one."""
    held_s: float = 2.0
    """From the first of them to the last."""


class Switch:
    """One home, or one way to it. At first it is not away: nobody was refused yet.

    >>> switch = Switch(Limits(probes_min=2, held_s=1.0))
    >>> switch.refused(5.0), switch.is_away
    (True, True)
    >>> switch.held(6.0), switch.held(6.5), switch.held(7.0), switch.is_away
    (False, False, True, False)
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        assert limits.probes_min >= 1, "nothing but a probe can end it"
        self.is_away = False
        self.since_s = 0.0
        """When it went away or came back last."""
        self.away_total = 0
        """How often it went away."""
        self._limits = limits
        self._good = 0
        self._first_s = 0.0

    def refused(self, now_s: float) -> bool:
        """A call was refused or lost, or it was found to be down. True: it is away since now."""
        self._good = 0
        if self.is_away:
            return False
        self.is_away, self.since_s = True, now_s
        self.away_total += 1
        return True

    def doubted(self) -> None:
        """A probe failed that alone proves nothing: what is away stays so."""
        self._good = 0

    def held(self, now_s: float) -> bool:
        """A probe was answered, in time. True: it is back since now."""
        if not self.is_away:
            return False
        if self._good == 0:
            self._first_s = now_s
        self._good += 1
        if self._good < self._limits.probes_min or now_s - self._first_s < self._limits.held_s:
            return False
        self.is_away, self.since_s, self._good = False, now_s, 0
        return True
