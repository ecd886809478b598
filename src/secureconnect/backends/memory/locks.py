"""Locked accounts in memory: the rows of tests and of the simulator, shared by the nodes of one world."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from secureconnect.features.lockout.model import Lock


class MemoryLocks:
    """A `LockStore`."""

    def __init__(self) -> None:
        self._number = 0
        self._locks: list[Lock] = []

    async def add(self, key: str, until_us: int) -> None:
        await trio.lowlevel.checkpoint()
        if not any(lock.key == key and lock.until_us >= until_us for lock in self._locks):
            self._number += 1
            self._locks.append(Lock(self._number, key, until_us))

    async def since(self, after: int, *, live_us: int, limit: int) -> Sequence[Lock]:
        await trio.lowlevel.checkpoint()
        return [lock for lock in self._locks if lock.number > after and lock.until_us > live_us][:limit]

    async def purge(self, before_us: int, *, limit: int) -> int:
        await trio.lowlevel.checkpoint()
        over = [lock for lock in self._locks if lock.until_us < before_us][:limit]
        self._locks = [lock for lock in self._locks if lock not in over]
        return len(over)
