"""The books of a hub: what became of every delivery. A delivery is one event to one connection.

At every moment `published == delivered + dropped + pending`, or there is a bug. What a replay or a poll brings is counted apart:
the same event may come that way after it was counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class Ledger:
    """Counts since the start. Written by the pump and the peers, read by anybody."""

    __slots__ = ("delivered", "dropped", "fell_behind", "hung_up", "pending", "polled", "published", "replayed")

    def __init__(self) -> None:
        self.published = 0
        """Deliveries that were begun."""
        self.delivered = 0
        """Left for the kernel, or for whatever is behind a sink."""
        self.pending = 0
        """Wait in a sink."""
        self.dropped: dict[str, int] = {}
        """By cause: `queue` (no room in the channel), `slow` (no room for ephemeral ones in the sink), `behind` (ephemeral, to a
        member that is catching up), `coalesced` (a newer one took its place), `disconnected`."""
        self.replayed = 0
        """Events that a replay handed over."""
        self.polled = 0
        """Events that a poll took."""
        self.fell_behind = 0
        """Times that a member stopped being live, to replay from its own cursor."""
        self.hung_up = 0
        """Connections that were ended as slow consumers."""

    @property
    def balances(self) -> bool:
        return self.published == self.delivered + self.pending + sum(self.dropped.values()) and self.pending >= 0

    def handed(self, count: int) -> None:
        """Straight to the kernel."""
        self.published += count
        self.delivered += count

    def queued(self, count: int) -> None:
        """Into a sink; negative: it did not take them after all."""
        self.published += count
        self.pending += count

    def left(self, count: int) -> None:
        """Out of a sink, to the kernel."""
        self.pending -= count
        self.delivered += count

    def lost(self, cause: str, count: int) -> None:
        """Never reached a sink."""
        if count:
            self.published += count
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def discarded(self, cause: str, count: int) -> None:
        """Out of a sink, to nowhere."""
        if count:
            self.pending -= count
            self.dropped[cause] = self.dropped.get(cause, 0) + count


@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """A look at a running hub. Depths are now, totals since the start."""

    channels: int
    """Open here."""
    peers: int
    places: int
    """Members of all channels together."""
    behind: int
    """Peers that a replay is serving."""
    queued: int
    """Events that wait for the pump, in all channels."""
    queued_max: int
    """In the fullest channel; bound `queue_max`."""
    queued_bytes: int
    queue_max: int
    queue_bytes_max: int
    full_total: int
    """Times that room was refused: to a publisher, to a feed, to an ephemeral event."""
    held: int
    """Entries held above holes."""
    reads_total: int
    reads_failed_total: int
    bus_waiting: int
    bus_lost_total: int
    """Messages for the bus that were dropped because it did not take them."""
    bus_failed_total: int
    bus_unknown_total: int
    """Messages from the bus that could not be understood."""
    bus_connected: bool
    rows_failed_total: int
    """Digests that the table did not take."""
    rows_unknown_total: int
    sweeps_total: int
    others: Mapping[str, int] = field(default_factory=dict)
    """Other nodes heard of, with their epochs."""
