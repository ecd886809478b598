"""Leases of presence in this process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import trio

from secureconnect.features.presence.store import GONE_MAX, LEASE_S, USERS_MAX, Change, Sighting
from secureconnect.ids import UserId
from secureconnect.ports import Clock


class MemoryLeaseStore:
    """A `LeaseStore`. As large as the number of users who are connected, and of those who were (at most `GONE_MAX`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_us: dict[UserId, dict[str, int]] = {}
        self._went_us: dict[UserId, int] = {}

    async def hold(self, node: str, users: Sequence[UserId], *, lease_s: float = LEASE_S) -> Change:
        await trio.lowlevel.checkpoint()
        until_us = self._clock.now_us() + round(lease_s * 1e6)
        came = [user for user in dict.fromkeys(users) if user not in self._until_us]
        for user in users:
            self._until_us.setdefault(user, {})[node] = until_us
        return Change(came=came)

    async def release(self, node: str, users: Sequence[UserId]) -> Change:
        await trio.lowlevel.checkpoint()
        return self._remove([(user, node) for user in users if node in self._until_us.get(user, {})])

    async def expire(self) -> Change:
        await trio.lowlevel.checkpoint()
        now_us = self._clock.now_us()
        due = ((user, node) for user, nodes in self._until_us.items() for node, until_us in nodes.items() if until_us <= now_us)
        return self._remove(list(islice(due, USERS_MAX)))

    async def look(self, users: Sequence[UserId]) -> Sequence[Sighting]:
        await trio.lowlevel.checkpoint()
        return [
            Sighting(user, True) if user in self._until_us else Sighting(user, False, self._went_us.get(user)) for user in users
        ]

    def _remove(self, leases: Sequence[tuple[UserId, str]]) -> Change:
        went = []
        for user, node in dict.fromkeys(leases):
            del self._until_us[user][node]
            if not self._until_us[user]:
                del self._until_us[user]
                went.append(user)
                self._went_us.pop(user, None)  # the newest stands last
                self._went_us[user] = self._clock.now_us()
        while len(self._went_us) > GONE_MAX:
            del self._went_us[next(iter(self._went_us))]
        return Change(went=went)
