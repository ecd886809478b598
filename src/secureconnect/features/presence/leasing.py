"""The users of this node and what is due about their leases, without I/O.

Sockets and polls are counted by user. With the first one a lease is due to be taken; when the last one has left she lingers, so
that a reconnect is no flicker, and then the lease is due to be given back. In between leases are renewed at an even pace: in each
`RENEW_S` as many as there are, those first that were renewed longest ago. When users leave meanwhile the pace falls with the
number, so no lease waits longer than twice that.

Whoever does the work takes a batch, makes the call and reports it; what was not reported is due still. One task does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from secureconnect.features.presence.store import RENEW_S, USERS_MAX
from secureconnect.ids import UserId

LINGER_S: Final = 5.0
"""After the last socket or poll: a client is back within that, through a change of networks as between two polls."""
GONE_MAX: Final = 10_000
"""Leases to be given back once the store returns. Full: the oldest is left to run out."""


class Leasing:
    """`now_s` is monotonic time in seconds. All is O(1), or in the size of the batch."""

    def __init__(self) -> None:
        self._counts: dict[UserId, int] = {}
        self._lingering: dict[UserId, float] = {}  # until when; in that order, for all linger equally long
        self._new: dict[UserId, None] = {}
        self._held: dict[UserId, None] = {}  # renewed longest ago first
        self._gone: dict[UserId, None] = {}
        self._due = 0.0  # how many of the held are due

    @property
    def users(self) -> int:
        return len(self._counts) + len(self._lingering)

    def is_here(self, user: UserId) -> bool:
        """Who lingers is."""
        return user in self._counts or user in self._lingering

    def arrived(self, user: UserId) -> bool:
        """One socket or poll more. True: she was not here."""
        was_here = self.is_here(user)
        self._counts[user] = self._counts.get(user, 0) + 1
        self._lingering.pop(user, None)
        if not was_here:
            self._gone.pop(user, None)
            self._new[user] = None
        return not was_here

    def left(self, user: UserId, now_s: float) -> None:
        """One less."""
        self._counts[user] -= 1
        if not self._counts[user]:
            del self._counts[user]
            self._lingering[user] = now_s + LINGER_S

    def end_lingering(self, now_s: float) -> Sequence[UserId]:
        """Those who have gone for good by now: their leases are due to be given back."""
        gone = []
        for user, until_s in self._lingering.items():
            if until_s > now_s:
                break
            gone.append(user)
        for user in gone:
            del self._lingering[user]
            self._new.pop(user, None)
            self._held.pop(user, None)
            self._gone[user] = None  # who was held or not: a call whose answer was lost may have taken the lease
            if len(self._gone) > GONE_MAX:
                del self._gone[next(iter(self._gone))]
        return gone

    def pass_time(self, seconds: float) -> None:
        """Renewals become due."""
        self._due = min(float(len(self._held)), self._due + len(self._held) * seconds / RENEW_S)

    def lost(self) -> None:
        """The store may have forgotten every lease: all are due."""
        self._due = float(len(self._held))

    # -- batches

    def to_release(self) -> Sequence[UserId]:
        return list(islice(self._gone, USERS_MAX))

    def to_hold(self) -> Sequence[UserId]:
        """Those who have no lease yet."""
        return list(islice(self._new, USERS_MAX))

    def to_renew(self) -> Sequence[UserId]:
        return list(islice(self._held, min(USERS_MAX, int(self._due))))

    def everybody(self) -> Sequence[UserId]:
        """All who hold a lease, as far as is known."""
        return list(self._held)

    def released(self, users: Sequence[UserId]) -> None:
        for user in users:
            self._gone.pop(user, None)

    def held(self, users: Sequence[UserId]) -> None:
        """Taken or renewed."""
        for user in users:
            if user in self._held:
                del self._held[user]
                self._due = max(0.0, self._due - 1)
            self._new.pop(user, None)
            self._held[user] = None
