"""Signals: short words from one node to every node, this one included, that change what the nodes hold in memory.

A signal is numbered by its node and goes onto the bus at once and into the next digests, so a lost bus message delays it by a
digest's period; whoever gets it twice acts once. They have no order among each other and no history: what a signal says must
also be found where it was decided (a revoked session in its table) by a node that was away for longer than the digests go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

SEEN_MAX = 4_096
"""Signal numbers remembered of one node: four digests full of them, more than can still be repeated."""

Handler: TypeAlias = Callable[[bytes], None]
Signal: TypeAlias = tuple[int, str, bytes]
"""Number, name, data."""


@dataclass(slots=True)
class _Heard:
    epoch: int
    numbers: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class Signals:
    """The handlers of this node, and what was heard of the others. Synchronous: a signal given here has acted on return."""

    number: int = 0
    repeated: int = 0
    """Signals that arrived again, as they should."""
    _handlers: dict[str, list[Handler]] = field(default_factory=dict)
    _heard: dict[str, _Heard] = field(default_factory=dict)

    def on(self, name: str, handler: Callable[[bytes], None]) -> None:
        """Call `handler(data)` for each signal of this name. It must not raise: there is nobody to tell."""
        self._handlers.setdefault(name, []).append(handler)

    def give(self, name: str, data: bytes) -> int:
        """Act on a signal of this node, and number it for the others."""
        self.number += 1
        self._act(name, data)
        return self.number

    def hear(self, node: str, epoch: int, signals: Iterable[Signal]) -> None:
        """Act on those of another node's signals that are new."""
        heard = self._heard.get(node)
        if heard is None or epoch > heard.epoch:
            heard = self._heard[node] = _Heard(epoch)
        elif epoch < heard.epoch:
            return
        for number, name, data in signals:
            if number in heard.numbers:
                self.repeated += 1
                continue
            heard.numbers[number] = None
            if len(heard.numbers) > SEEN_MAX:
                del heard.numbers[next(iter(heard.numbers))]
            self._act(name, data)

    def _act(self, name: str, data: bytes) -> None:
        for handler in tuple(self._handlers.get(name, ())):
            handler(data)
