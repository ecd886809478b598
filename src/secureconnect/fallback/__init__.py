"""What a node does while the home of some data is away, what it tells of that, and how things come home: a library, anyio only.

`POLICY` says for each kind of data what happens; a `Switch` says whether a home is away; `Degradation` makes both known.
`SyncBack` keeps decisions on this node's disk, brings them home by `Rule`s when the home is back, and tells by a `Receipt` what
became of each.
"""

from __future__ import annotations

from .degradation import Degradation
from .outage_log import Category, Item, OutageLog, OutageLogFull, Outcome
from .policy import HOMES, POLICY, Effect, Home, Row, degraded
from .receipt import Receipt, Receipts
from .switch import Limits as SwitchLimits
from .switch import Switch
from .sync import Rule, SyncBack, drop, latest, union

__all__ = [
    "HOMES", "POLICY", "Category", "Degradation", "Effect", "Home", "Item", "OutageLog", "OutageLogFull", "Outcome", "Receipt",
    "Receipts", "Row", "Rule", "Switch", "SwitchLimits", "SyncBack", "degraded", "drop", "latest", "union",
]  # fmt: skip
