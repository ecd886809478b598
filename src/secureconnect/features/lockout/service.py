"""Is this account locked for whoever tries from there? By the tallies that all nodes share, and by what this node knows itself.

Three homes. The shared tallies (Redis) count, and may be lost. This node's own tallies count while the shared ones are away, and
are brought in when they return, where the higher count and the later end win. Locks are known to every node (`LockSet`), in
memory and on disk, and hold whatever becomes of the tallies. So an outage can lock later than it should, by the tries of each
node, and never unlock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from secureconnect.errors import SecureConnectError, Unavailable
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.model import AccountLocked, Tally, lockout_key
from secureconnect.features.lockout.store import LockoutStore
from secureconnect.ports import Clock

LOCKED: Final = "lock"
"""The signal's name; its data is `LockSet.told`."""
APART_MAX: Final = 10_000
"""Keys counted apart in one outage. Full: the oldest is not brought in, and is counted as dropped."""


class Lockouts:
    """A `Guard`. `shared` is one store for all nodes, `local` this node's own. `signal` takes a name and data to every node."""

    def __init__(
        self,
        shared: LockoutStore,
        local: LockoutStore,
        *,
        locks: LockSet,
        clock: Clock,
        signal: Callable[[str, bytes], None],
    ) -> None:
        self.locked_total = 0
        """Locks that began on this node."""
        self.dropped_total = 0
        self.is_local = False
        """The last tally that was asked for is only this node's: the shared ones are away."""
        self._shared, self._local, self._locks, self._clock, self._signal = shared, local, locks, clock, signal
        self._apart: dict[str, None] = {}

    @property
    def apart(self) -> int:
        """Keys that only this node counted, and that are still to be brought in."""
        return len(self._apart)

    async def check(self, email: str, address: str) -> None:
        """As `Guard`."""
        key = lockout_key(email, address)
        self._check(self._locks.until_us(key))  # a locked one costs nobody a question
        with suppress(Unavailable):
            self._check((await self._shared.read(key)).locked_until_us)

    def _check(self, until_us: int) -> None:
        left_us = until_us - self._clock.now_us()
        if left_us > 0:
            raise AccountLocked(retry_after_s=left_us / 1e6)

    async def failed(self, email: str, address: str) -> None:
        """As `Guard`. A lock holds on this node, and the others are told, before it is on disk."""
        key = lockout_key(email, address)
        try:
            tally = await self._shared.fail(key)
            self.is_local = False
        except Unavailable:
            self._note(key)
            self.is_local = True
            tally = await self._local.fail(key)
        if tally.lock_left_s(self._clock.now_us()):
            await self._lock(key, tally)

    async def _lock(self, key: str, tally: Tally) -> None:
        if not self._locks.add(key, tally.locked_until_us):
            return
        self.locked_total += 1
        self._signal(LOCKED, self._locks.told(key))
        with suppress(SecureConnectError):  # it is written when the disk is back
            await self._locks.keep(key)

    async def succeeded(self, email: str, address: str) -> None:
        """As `Guard`: failures are forgotten, here at least."""
        key = lockout_key(email, address)
        await self._local.clear(key)
        with suppress(Unavailable):  # what is left there counts for a quarter of an hour, on the safe side
            await self._shared.clear(key)

    async def bring_back(self) -> int:
        """Bring in what was counted apart; how many keys. Raises: Unavailable, with the rest kept for the next time."""
        count = 0
        for key in list(self._apart):
            if key not in self._apart:
                continue  # another one brought it in meanwhile
            del self._apart[key]  # before the look at it: what is counted apart from now on is noted again
            try:
                tally = await self._shared.merge(key, await self._local.read(key))
            except BaseException:
                self._note(key)
                raise
            self.is_local = False
            if tally.lock_left_s(self._clock.now_us()):
                await self._lock(key, tally)
            count += 1
        return count

    def _note(self, key: str) -> None:
        self._apart[key] = None
        if len(self._apart) > APART_MAX:
            del self._apart[next(iter(self._apart))]
            self.dropped_total += 1
