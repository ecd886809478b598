"""From what is away to what people are told: refusals and probes in, degraded features out, at once.

One switch for each home. Whoever is refused says so in the same step (`resilience.Stack.on_refusal`, the hub about its bus), so
that people know before a prober does; what holds again is told by the prober's own writes, and by this node's digests that come
back over the bus. What the table of `policy` says of the homes that are away then stands on the board (`observe.status`).

It also knows what this node lacks alone: when another one, heard a moment ago, does not lack it too, traffic is better off there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from secureconnect.hub import Hub
from secureconnect.observe.status import FeatureStatus
from secureconnect.resilience import Stack

from .policy import Home, degraded
from .switch import Limits, Switch

ALONE_S: Final = 10.0
"""So long must this node lack what another has before it counts as cut off: all nodes name a common fault within 5 s
(interface.md §7), and word of it takes 2 s; twice that, for a balancer must not find all nodes unready in turn."""


class Degradation:
    """What a node is without. `now_s` is monotonic, `now_us` wall time. For one event loop; every method returns at once.

    >>> board = FeatureStatus()
    >>> what = Degradation(["redis", "bus"], board, now_s=lambda: 7.0, now_us=lambda: 1_000_000)
    >>> what.refused("bus")
    >>> list(board.degraded), what.lacks()
    (['live_delivery', 'typing'], ('bus',))
    """

    def __init__(
        self, homes: Iterable[Home], board: FeatureStatus, *, now_s: Callable[[], float], now_us: Callable[[], int],
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:  # fmt: skip
        self.switches = {home: Switch(limits) for home in homes}
        self._board, self._now_s, self._now_us = board, now_s, now_us
        self._told: dict[str, None] = {}

    # -- what is heard

    def watch_stack(self, home: Home, stack: Stack) -> None:
        """Hear of each call that this dependency did not serve."""
        stack.on_refusal(partial(self.refused, home))

    def watch_bus(self, hub: Hub) -> None:
        """Hear of the hub's bus."""
        hub.on_bus(lambda is_well: self.held("bus") if is_well else self.refused("bus"))

    def refused(self, home: Home) -> None:
        """A call was not served, or it was found to be down."""
        if self.switches[home].refused(self._now_s()):
            self._tell()

    def held(self, home: Home) -> None:
        """Its real operation was done, as fast as calls need it."""
        if self.switches[home].held(self._now_s()):
            self._tell()

    def probed(self, home: Home, *, is_well: bool, is_down: bool) -> None:
        """A probe ended. Neither: it failed or was slow, and that alone proves nothing."""
        if is_well:
            self.held(home)
        elif is_down:
            self.refused(home)
        else:
            self.switches[home].doubted()

    # -- what is told

    def lacks(self) -> tuple[Home, ...]:
        """The homes that are away for this node."""
        return tuple(home for home, switch in self.switches.items() if switch.is_away)

    def is_cut_off(self, others: Sequence[Sequence[str]]) -> bool:
        """Whether this node lacks for a while what no other lacks. `others`: what each node that was heard just now lacks.

        Nobody else was heard: no, for then nobody would serve at all.
        """
        now_s = self._now_s()
        return bool(others) and any(
            switch.is_away and now_s - switch.since_s >= ALONE_S and not any(home in other for other in others)
            for home, switch in self.switches.items()
        )

    def _tell(self) -> None:
        now_us, effects = self._now_us(), degraded(self.lacks())
        for feature in [one for one in self._told if one not in effects]:
            self._board.recover(feature)
        for effect in effects.values():
            self._board.degrade(effect.feature, cause=effect.cause, works=effect.works, since_us=now_us)
        self._told = dict.fromkeys(effects)
