"""A hub for real-time servers: channels, bounded queues, resume and replay, one event encoded once for everybody.

A library of its own, for asyncio and trio: it knows nothing of the server around it. Begin with `Hub` (hub.py) and `QueueSink`;
`examples/` has both in ten lines. What outsiders use is named here; the modules behind are free to change.
"""

from __future__ import annotations

from .bus import Bus, Link, MemoryBus
from .digest import DigestTable
from .errors import Away, BusAway, Closed, Full, HubError, SourceAway, TableAway
from .frame import Frame, Item, gap_frame
from .hub import Hub
from .ledger import HubStatistics, Ledger
from .limits import Limits
from .outbox import Outbox
from .peer import Peer
from .place import Place
from .queue_sink import QueueSink
from .room import Reservation
from .sink import DirectSink, SendNow, Sink
from .source import Page, Source

__all__ = [
    "Away", "Bus", "BusAway", "Closed", "DigestTable", "DirectSink", "Frame", "Full", "Hub", "HubError", "HubStatistics", "Item",
    "Ledger", "Limits", "Link", "MemoryBus", "Outbox", "Page", "Peer", "Place", "QueueSink", "Reservation", "SendNow", "Sink",
    "Source", "SourceAway", "TableAway", "gap_frame",
]  # fmt: skip
