"""Which login sessions are over although their access tokens have not expired: in memory on every node, asked at every request.

The set only grows by union (an own deed, a signal from another node, a row of the store) and only shrinks when an entry's tokens
have expired by themselves. So the order and number of these messages do not matter, and nothing that was revoked works again.
An entry names the session's owner too: what was revoked while nobody could ask whose session it is binds only the owner's tokens.

A node that starts while the store is away begins with what it knew last (`Known`, kept on its disk). Was that longer ago than a
token lives, it cannot know enough: tokens issued before its start are refused as expired until the store was read.

Bounds. Time: an entry stays for its tokens' life and `CLOCK_BACK_US` more, so that a clock that jumps back after an entry was
dropped cannot revive its tokens. Number: beyond `entries_max` the oldest entry is dropped and instead *every* token that expires
no later than that entry's is refused as expired; their owners refresh, and the store knows who may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from secureconnect.features.auth.model import Identity, Overlap, Revocation
from secureconnect.features.auth.store import RevocationStore
from secureconnect.ids import SessionId, UserId
from secureconnect.ports import Clock

CLOCK_BACK_US: Final = 3_600_000_000
"""A clock that jumps back by no more than an hour revives nothing."""
ENTRIES_MAX: Final = 200_000
"""About 150 bytes each. An ordinary quarter of an hour has a few hundred."""
PAGE_ROWS: Final = 500


class Known(msgspec.Struct, frozen=True):
    """What a node knew. `as_of_us`: when it had last read all that the store has (wall time; 0: never). Entries: until when."""

    as_of_us: int
    floor_us: int
    entries: dict[tuple[SessionId, UserId], int]


class RevocationSet:
    """The revocations in force on this node. One per process, shared by whoever checks tokens."""

    def __init__(self, clock: Clock, *, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self.changes = 0
        """Grows with every entry, and with what is known of one."""
        self._until: dict[tuple[SessionId, UserId], int] = {}
        self._as_of_us = self._floor_us = self._unknown_us = 0
        self._overlap = Overlap(clock.now_us())

    def __len__(self) -> int:
        return len(self._until)

    def add(self, session: SessionId, user: UserId, until_us: int) -> bool:
        """Refuse the session's tokens from now on. `until_us`: when the last of them has expired. False: known before."""
        known = self._until.get((session, user))
        self._until[session, user] = max(until_us, known or 0)
        self.changes += known is None or until_us > known
        self._drop_expired()
        while len(self._until) > self._entries_max:
            oldest = next(iter(self._until))
            self._floor_us = max(self._floor_us, self._until.pop(oldest))
        return known is None

    def refuses(self, identity: Identity) -> bool:
        """Whether the session of this token was ended."""
        return (identity.session, identity.user) in self._until

    def expires_early(self, identity: Identity) -> bool:
        """Whether the token is so old that an entry about it may have been dropped for want of room, or was never heard of."""
        return identity.expires_at_s * 1_000_000 <= max(self._floor_us, self._unknown_us)

    @property
    def was_whole(self) -> bool:
        """Whether all that the store had was ever read, by this node now or before it started."""
        return self._as_of_us > 0

    def known(self) -> Known:
        """To be kept for a start without the store."""
        return Known(self._as_of_us, self._floor_us, dict(self._until))

    def recall(self, known: Known, *, life_us: int) -> None:
        """Start with what was known. `life_us`: of an access token."""
        for (session, user), until_us in known.entries.items():
            self.add(session, user, until_us)
        now_us = self._clock.now_us()
        self._floor_us = max(self._floor_us, known.floor_us)
        self._as_of_us = max(self._as_of_us, known.as_of_us)
        if not 0 <= now_us - known.as_of_us <= life_us:  # below 0: the clock was wrong then or is now
            self._unknown_us = now_us + life_us

    async def load(self, store: RevocationStore) -> None:
        """Before the first request: everything in force. Raises: BackendDown, DeadlineExceeded (then do not serve)."""
        await self.follow(store, lambda row: None)

    async def follow(self, store: RevocationStore, tell: Callable[[Revocation], None]) -> None:
        """One look into the store for what other nodes ended; `tell` gets each row that was news here, when it is in force.

        Reads again what may have been overtaken (see `RevocationStore.since`). Raises: BackendDown, DeadlineExceeded.
        Cancellation: what was read is in force and told.
        """
        now_us = self._clock.now_us()
        after = self._overlap.begin(now_us)
        while True:
            rows = await store.since(after, live_us=now_us - CLOCK_BACK_US, limit=PAGE_ROWS)
            for row in rows:
                after = row.number
                if self.add(row.session, row.user, row.until_us):
                    tell(row)
            self._overlap.saw(after)
            if len(rows) < PAGE_ROWS:
                self._as_of_us, self._unknown_us = now_us, 0
                return

    def _drop_expired(self) -> None:
        """Entries come in about the order of their end, so the front is enough."""
        over_us = self._clock.now_us() - CLOCK_BACK_US
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > over_us:
                return
            del self._until[oldest]
