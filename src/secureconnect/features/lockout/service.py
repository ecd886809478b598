"""Is this account locked for whoever tries from there? By the tallies that all nodes share, and by what this node knows itself.

While the shared tallies are away each node counts for itself, and every lock it knew of holds: what it counted itself and the
locks it was told of are kept in its own store all the time. When they return, what was counted apart is brought in, where the
higher count and the later end win. So an outage can lock later than it should, by the tries of each node, and never unlock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from secureconnect.errors import NotAuthenticated, Unavailable
from secureconnect.features.lockout.model import Tally, lockout_key, merged
from secureconnect.features.lockout.store import LockoutStore
from secureconnect.ports import Clock

APART_MAX: Final = 10_000
"""Keys counted apart in one outage. Full: the oldest is not brought in, and is counted as dropped."""


class AccountLocked(NotAuthenticated):
    """Too many failed tries; this account is locked for a while"""

    code: ClassVar[str] = "ACCOUNT_LOCKED"


class Lockouts:
    """`shared` is one store for all nodes, `local` this node's own. `on_lock(key, tally)` tells the others; it must not raise."""

    def __init__(self, shared: LockoutStore, local: LockoutStore, *, clock: Clock, on_lock: Callable[[str, Tally], None]) -> None:
        self.dropped_total = 0
        self._shared, self._local, self._clock, self._on_lock = shared, local, clock, on_lock
        self._apart: dict[str, None] = {}

    @property
    def apart(self) -> int:
        """Keys that only this node counted, and that are still to be brought in."""
        return len(self._apart)

    async def check(self, email: str, address: str) -> None:
        """Before the password is looked at. Raises: AccountLocked, with the time that is left."""
        key = lockout_key(email, address)
        tally = await self._local.read(key)
        with suppress(Unavailable):
            tally = merged(tally, await self._shared.read(key))
        left_s = tally.lock_left_s(self._clock.now_us())
        if left_s:
            raise AccountLocked(retry_after_s=left_s)

    async def failed(self, email: str, address: str) -> None:
        """The password was wrong. Cancellation: it may not be counted."""
        key = lockout_key(email, address)
        try:
            tally = await self._shared.fail(key)
        except Unavailable:
            tally = await self._local.fail(key)
            self._note(key)
        if tally.lock_left_s(self._clock.now_us()):
            await self.mirror(key, tally)
            self._on_lock(key, tally)

    async def succeeded(self, email: str, address: str) -> None:
        """The password was right: failures are forgotten, here at least."""
        key = lockout_key(email, address)
        await self._local.clear(key)
        with suppress(Unavailable):  # what is left there counts for a quarter of an hour, on the safe side
            await self._shared.clear(key)

    async def mirror(self, key: str, tally: Tally) -> None:
        """A lock that another node told of, or that was kept on disk: it holds here from now on."""
        await self._local.merge(key, tally)

    async def bring_back(self) -> int:
        """Bring in what was counted apart; how many keys. Raises: Unavailable, with the rest kept for the next time."""
        count = 0
        for key in list(self._apart):
            if key not in self._apart:
                continue  # another one brought it in meanwhile
            del self._apart[key]  # before the look at it: what is counted apart from now on is noted again
            try:
                await self._shared.merge(key, await self._local.read(key))
            except BaseException:
                self._note(key)
                raise
            count += 1
        return count

    def _note(self, key: str) -> None:
        self._apart[key] = None
        if len(self._apart) > APART_MAX:
            del self._apart[next(iter(self._apart))]
            self.dropped_total += 1
