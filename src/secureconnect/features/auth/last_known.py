"""The revocations that this node knew last, on its disk: what it begins with when it starts while their store is away.

Written a moment after a change, whole and atomically, and from time to time without one, so that its age says how much may be
missing. What this node itself ended and could not store is not left to it: that is on the disk before it is acknowledged.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec
import structlog

from secureconnect.features.auth.revocations import Known, RevocationSet
from secureconnect.ports import Blocking, Clock, Disk

FILE: Final = "revocations"
STILL_US: Final = 60_000_000
"""Without a change it is written this often: old is what is older than a quarter of an hour."""

_log = structlog.get_logger("secureconnect.auth")


class LastKnown:
    """The file. `save` is called every second or two, by one caller; `load` once, before the first `save`."""

    def __init__(self, revocations: RevocationSet, disk: Disk, blocking: Blocking, *, clock: Clock) -> None:
        self._revocations, self._disk, self._blocking, self._clock = revocations, disk, blocking, clock
        self._saved_changes = -1
        self._saved_us = 0
        self._is_failing = False

    async def load(self, *, life_us: int) -> bool:
        """Put in force what was known. `life_us`: of an access token. False: there is nothing that can be read."""
        try:
            data = await self._disk.read(FILE)
            known = None if data is None else msgspec.msgpack.decode(data, type=Known)
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("last_known_revocations_unreadable", error=str(error))
            return False
        if known is None:
            return False
        self._revocations.recall(known, life_us=life_us)
        _log.info(
            "last_known_revocations", entries=len(known.entries), age_s=(self._clock.now_us() - known.as_of_us) // 1_000_000
        )
        return True

    async def save(self) -> None:
        """Write what is known, if it changed or was written a while ago. A disk that fails is told of once, and tried again.

        A node that waits for the store has heard of little, which must not take the place of what an earlier run knew.
        """
        if not self._revocations.was_whole:
            return
        now_us, changes = self._clock.now_us(), self._revocations.changes
        if changes == self._saved_changes and 0 <= now_us - self._saved_us < STILL_US:
            return
        data = await self._blocking.run(
            partial(msgspec.msgpack.encode, self._revocations.known())
        )  # 20 ms for the most there are
        try:
            await self._disk.replace(FILE, data)
        except OSError as error:
            if not self._is_failing:
                _log.error("last_known_revocations_not_saved", error=str(error))
            self._is_failing = True
            return
        self._saved_changes, self._saved_us, self._is_failing = changes, now_us, False
