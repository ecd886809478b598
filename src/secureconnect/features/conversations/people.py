"""Whom a request means: ids and exact user names become the profiles of people who exist."""

from __future__ import annotations

from collections.abc import Sequence

from secureconnect.errors import NotFound
from secureconnect.features.conversations.model import Profile, invalid, profile_object
from secureconnect.features.conversations.store import UserDirectory
from secureconnect.ids import UserId, is_uuid
from secureconnect.observe import stage

NAMED_IN_AN_ERROR_MAX = 10


class People:
    """Looks people up."""

    def __init__(self, users: UserDirectory) -> None:
        self._users = users

    async def named(
        self, ids: Sequence[str], usernames: Sequence[str] = (), *, field: str, field_of_names: str = ""
    ) -> list[Profile]:
        """Everybody named, once each, in the order named, ids first.

        Raises: BadRequest (not an id), NotFound (nobody has it); `details.field` is `field` or `field_of_names`.
        """
        users = [user_id(text, field=field) for text in ids]
        stage.at("sql")
        known = await self._users.by_ids(list(dict.fromkeys(users))) if users else {}
        refuse_unknown([user for user in users if user not in known], field=field)
        names = [name for name in usernames if name.isprintable()]
        by_name = await self._users.by_usernames(list(dict.fromkeys(names))) if names else {}
        refuse_unknown([name for name in usernames if name not in by_name], field=field_of_names)
        people = [known[user] for user in users] + [by_name[name] for name in usernames]
        return list({profile.user: profile for profile in people}.values())

    async def face(self, user: UserId) -> dict[str, object]:
        """The id, and what can be shown beside it; an account that is gone has no more than its id. Raises: BackendDown."""
        stage.at("sql")
        profile = (await self._users.by_ids([user])).get(user)
        return {"user_id": user} if profile is None else profile_object(profile)


def user_id(text: str, *, field: str) -> UserId:
    """Raises: BadRequest."""
    if not is_uuid(text):
        raise invalid(field, f"{field} takes ids of users (UUIDs)")
    return UserId(text.lower())


def refuse_unknown(unknown: Sequence[str], *, field: str) -> None:
    if unknown:
        details = {"field": field, "unknown": list(unknown[:NAMED_IN_AN_ERROR_MAX])}
        raise NotFound("There is no such user", details=details)
