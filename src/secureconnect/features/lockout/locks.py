"""The locks in force as this node knows them: by its own deed, by another node's signal, from the table on disk.

The set only grows by union and only shrinks when a lock has ended by itself, so the order and number of these messages do not
matter. A lock that could not be written is kept here, holds, and is written when the table is back: another home that was
restarted empty meanwhile, or a node that was not there when the signal was given, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from secureconnect.features.auth.model import Overlap
from secureconnect.features.lockout.store import LockStore
from secureconnect.ports import Clock

LOCKS_MAX: Final = 100_000
"""About 20 MB. Full: the oldest is forgotten here, and counted as dropped; its row and the shared tally still hold."""
PAGE_ROWS: Final = 500

_log = structlog.get_logger("secureconnect.lockout")


class _Signal(msgspec.Struct):
    key: str
    until_us: int


class LockSet:
    """One per node."""

    def __init__(self, store: LockStore, clock: Clock, *, locks_max: int = LOCKS_MAX) -> None:
        self.dropped_total = 0
        self._store, self._clock, self._locks_max = store, clock, locks_max
        self._until_us: dict[str, int] = {}
        self._unwritten: dict[str, None] = {}
        self._overlap = Overlap(clock.now_us())

    def __len__(self) -> int:
        return len(self._until_us)

    @property
    def unwritten(self) -> Mapping[str, None]:
        """Locks that are not on disk yet."""
        return self._unwritten

    def until_us(self, key: str) -> int:
        """When its lock ends, or ended; 0: none is known."""
        return self._until_us.get(key, 0)

    def add(self, key: str, until_us: int) -> bool:
        """It holds here from now on, till the latest end that was ever told. False: known before."""
        known_us = self._until_us.get(key, 0)
        if until_us <= known_us:
            return False
        self._until_us.pop(key, None)
        self._until_us[key] = until_us  # at the end: locks come in about the order of theirs
        self._drop()
        return True

    async def keep(self, key: str) -> None:
        """Write it to disk. Raises: as the store; then, or when cancelled, `follow` writes it."""
        self._unwritten[key] = None
        if key in self._until_us:
            await self._store.add(key, self._until_us[key])
        self._unwritten.pop(key, None)

    async def follow(self) -> None:
        """Take over what others wrote, and write what is unwritten. Once before the first login, then every second or two.

        Raises: BackendDown, DeadlineExceeded, OutcomeUnknown; call it again. Cancellation: what was read is in force.
        """
        now_us = self._clock.now_us()
        after = self._overlap.begin(now_us)
        is_more = True
        while is_more:
            rows = await self._store.since(after, live_us=now_us, limit=PAGE_ROWS)
            for row in rows:
                after = row.number
                self.add(row.key, row.until_us)
            self._overlap.saw(after)
            is_more = len(rows) == PAGE_ROWS
        for key in list(self._unwritten):
            await self.keep(key)

    async def purge(self) -> int:
        """Forget ended rows, a bounded number at a time; returns how many went. Raises: as the store."""
        return await self._store.purge(self._clock.now_us(), limit=PAGE_ROWS)

    def told(self, key: str) -> bytes:
        """What the signal to the other nodes says of a lock."""
        return msgspec.json.encode(_Signal(key, self._until_us[key]))

    def heard(self, data: bytes) -> None:
        """The handler of that signal. Never raises."""
        try:
            signal = msgspec.json.decode(data, type=_Signal)
        except msgspec.DecodeError:
            _log.warning("signal_unreadable", signal="lock", bytes=len(data))
            return
        self.add(signal.key, signal.until_us)

    def _drop(self) -> None:
        now_us = self._clock.now_us()
        while self._until_us:
            oldest = next(iter(self._until_us))
            is_over = self._until_us[oldest] <= now_us
            if not is_over and len(self._until_us) <= self._locks_max:
                return
            del self._until_us[oldest]
            self._unwritten.pop(oldest, None)
            self.dropped_total += not is_over
