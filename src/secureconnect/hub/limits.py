"""Every bound of a hub, with its unit in its name. Each says what happens when it is reached.

What belongs to a mechanism and is no operator's choice (the feed's waits, the digest's periods) stands beside the mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Defaults are those of a server node; an embedder changes what does not fit."""

    queue_max: int = 5_000
    """Events that wait in one channel. Full: publishers wait; what is stored is read from the log later; ephemeral is dropped."""
    queue_bytes_max: int = 256 << 20
    """Payload bytes that wait in all channels together. Full: as above."""
    reserve_wait_s: float = 5.0
    """How long a publisher waits for room before `Full`: one store call's share of a request."""
    outbox_messages_max: int = 5_000
    """Messages that wait for one connection. Full: it stops being live and replays from its own cursor."""
    outbox_bytes_max: int = 1 << 20
    """Bytes that wait for one connection. Full: as above."""
    replay_entries_max: int = 1_000
    """More missed than this is not replayed: `recovered` is false and the client reads the log."""
    replay_wait_s: float = 10.0
    """A replay that finds no room for this long ends its connection, resumable: nothing is read on the other side."""
    write_wait_s: float = 10.0
    """One message that a `QueueSink` cannot write for this long ends its connection."""
    read_deadline_s: float = 5.0
    """One read of a source or the table, its retries included."""
    reads_max: int = 32
    """Reads of sources under way for all feeds, and as many for all replays; more wait."""
    history_s: float = 60.0
    """How long a channel without a log keeps its events, and stays open after its last member left."""
    history_events_max: int = 1_000
    """Events that one channel without a log keeps; the oldest go first."""
    linger_s: float = 10.0
    """How long a channel with a log stays open after its last member left: a poller comes back within this."""
    bus_deadline_s: float = 1.0
    """One publish, one subscribe."""
    bus_queue_max: int = 10_000
    """Messages that wait for the bus. Full: the oldest are dropped, the digest repairs it."""
    bus_queue_bytes_max: int = 64 << 20
    """Payload bytes that wait for the bus. Full: as above."""
