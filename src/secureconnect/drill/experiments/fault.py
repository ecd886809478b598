"""One way to break something of a cluster and to mend it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from secureconnect.drill.cluster import Cluster

Deed = Callable[[Cluster, float], Awaitable[None]]
"""Break it, wait for so many seconds, mend it."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """`is_outage` False: the dependency itself serves others all the time, or is there again at once.

    `independent`: kinds of requests that do not need the dependency.
    """

    name: str
    dependency: str
    do: Deed
    independent: frozenset[str]
    is_outage: bool = True
