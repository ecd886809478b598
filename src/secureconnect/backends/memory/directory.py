"""The users' directory in memory: a look through the accounts' store that shows what everybody may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secureconnect.features.auth.model import User
from secureconnect.features.auth.store import UserStore
from secureconnect.features.conversations.model import Profile
from secureconnect.ids import UserId

PUBLIC = ("online", "offline", "busy", "away")
"""Any other status is nobody's business: it shows as `offline`."""


class MemoryDirectory:
    """`UserDirectory` over accounts."""

    def __init__(self, users: UserStore) -> None:
        self._users = users

    async def by_ids(self, users: Sequence[UserId]) -> Mapping[UserId, Profile]:
        found = [await self._users.user(user) for user in dict.fromkeys(users)]
        return {user.id: profile(user) for user in found if user is not None and user.status != "deleted"}

    async def by_usernames(self, names: Sequence[str]) -> Mapping[str, Profile]:
        found = [await self._users.by_username(name) for name in dict.fromkeys(names)]
        return {user.username: profile(user) for user in found if user is not None and user.status != "deleted"}


def profile(user: User) -> Profile:
    status = user.status if user.status in PUBLIC else "offline"
    return Profile(user.id, user.username, user.display_name, user.avatar_url, status)
