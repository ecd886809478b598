"""What a node does while the home of some data is away, what it tells of that, and how things come home: a library, anyio only.

`POLICY` says for each kind of data what happens; a `Switch` says whether a home is away; `Degradation` makes both known.
"""

from __future__ import annotations

from .degradation import Degradation
from .policy import HOMES, POLICY, Effect, Home, Row, degraded
from .switch import Limits as SwitchLimits
from .switch import Switch

__all__ = [
    "HOMES", "POLICY", "Degradation", "Effect", "Home", "Row", "Switch", "SwitchLimits", "degraded",
]  # fmt: skip
