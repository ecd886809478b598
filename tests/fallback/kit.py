"""A home that goes away, a clock that is set, and a node with its disk between them."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from secureconnect.errors import BackendDown, Conflict
from secureconnect.fallback import Item, OutageLog, Outcome, Receipts, Rule, SyncBack, drop, latest, union
from secureconnect.testing.faulty_disk import FaultyDisk


@dataclass
class SetClock:
    us: int = 1_768_000_000_000_000

    def now_us(self) -> int:
        return self.us


@dataclass
class Home:
    """What all nodes share. `deeds`: every call that reached it. `away_after`: so many more calls are served; None: all."""

    names: set[str] = field(default_factory=set)
    heights: dict[str, int] = field(default_factory=dict)
    deeds: list[str] = field(default_factory=list)
    away_after: int | None = None
    reached: anyio.Event = field(default_factory=anyio.Event)

    async def add(self, item: Item) -> bool:
        await self._reach(item)
        is_news = item.key not in self.names
        self.names.add(item.key)
        return is_news

    async def offer(self, item: Item) -> bool:
        await self._reach(item)
        height = int(item.data)
        wins = height > self.heights.get(item.key, 0)
        self.heights[item.key] = max(height, self.heights.get(item.key, 0))
        return wins

    async def refuse(self, item: Item) -> Outcome:
        await self._reach(item)
        raise Conflict

    async def _reach(self, item: Item) -> None:
        await anyio.lowlevel.checkpoint()
        if self.away_after is not None:
            if not self.away_after:
                raise BackendDown("home")
            self.away_after -= 1
        self.deeds.append(item.key)
        self.reached.set()


@dataclass
class Place:
    """One start of a node."""

    sync: SyncBack
    log: OutageLog
    receipts: Receipts


def place(disk: FaultyDisk, home: Home, clock: SetClock, *, bytes_max: int = 1 << 20) -> Place:
    """Before `load`."""
    log, receipts = OutageLog(disk, "home.outage", bytes_max=bytes_max), Receipts(disk)
    rules = {"union": union(home.add), "latest": latest(home.offer), "drop": drop("no use"), "refused": Rule(home.refuse)}
    return Place(SyncBack("home", log, receipts, rules, clock=clock), log, receipts)
