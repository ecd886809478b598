"""What a node does while the home of some data is away, and how what it decided alone comes home: a library, anyio only.

`SyncBack` keeps decisions on this node's disk, brings them home by `Rule`s when the home is back, and tells by a `Receipt` what
became of each.
"""

from __future__ import annotations

from .outage_log import Category, Item, OutageLog, OutageLogFull, Outcome
from .receipt import Receipt, Receipts
from .sync import Rule, SyncBack, drop, latest, union

__all__ = [
    "Category", "Item", "OutageLog", "OutageLogFull", "Outcome", "Receipt", "Receipts", "Rule", "SyncBack", "drop", "latest",
    "union",
]  # fmt: skip
