"""Login sessions that ended while the database was away: kept, held in force, and brought home by union.

The data of an item is its reason; its key names the session and the user who ended it, which nobody could check meanwhile.
"""

from __future__ import annotations

from typing import Final, cast

from secureconnect.fallback.outage_log import Item
from secureconnect.fallback.sync import Rule, SyncBack, union
from secureconnect.features.auth.endings import SessionEndings
from secureconnect.features.auth.model import Ending, EndReason
from secureconnect.ids import SessionId, UserId

KIND: Final = "session.ended"
HELD_MAX: Final = 200
"""Endings said again at a time. An outage has a few; of more, each gets its turn."""


class KeptEndings:
    """The endings that this node keeps. `keep` is what `SessionEndings` is given."""

    def __init__(self, sync: SyncBack) -> None:
        self._sync = sync
        self._turn = 0

    async def keep(self, session: SessionId, user: UserId, ending: Ending) -> None:
        """On return it survives a crash. Raises: OutageLogFull, BackendDown (the disk)."""
        await self._sync.keep(KIND, f"{session} {user}", ending.reason.encode())

    def hold(self, endings: SessionEndings, *, most: int = HELD_MAX) -> None:
        """Say again what is not home yet, at most so many of them: for who was not reached, and for as long as it takes."""
        waiting = [item for item in self._sync.pending if item.kind == KIND]
        begin = self._turn if self._turn < len(waiting) else 0
        turn = waiting[begin : begin + most]
        self._turn = begin + len(turn)
        endings.hold(map(_read, turn))


def endings_rule(endings: SessionEndings) -> Rule:
    """Never un-revoked: an ending that the database has already, for whatever reason, stays as it is there."""

    async def add(item: Item) -> bool:
        return await endings.bring_home(*_read(item))

    return union(add)


def _read(item: Item) -> tuple[SessionId, UserId, EndReason]:
    session, _, user = item.key.partition(" ")  # two UUIDs
    return SessionId(session), UserId(user), cast("EndReason", item.data.decode())
