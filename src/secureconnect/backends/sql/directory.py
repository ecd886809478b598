"""The users' directory in SQL: what everybody may know of a user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, cast

from secureconnect.backends.sql.bulk import in_bulk
from secureconnect.backends.sql.engine import Engine, Plan, Row, Value
from secureconnect.features.conversations.model import Profile
from secureconnect.ids import UserId

PROFILE: Final = "u.user_id, u.username, u.display_name, u.avatar_url, u.status"
PROFILE_COLUMNS: Final = 5
SELECT_BY_ID: Final = f"SELECT {PROFILE} FROM users u WHERE u.status <> 'deleted' AND u.user_id IN (VALUES {{rows}})"
SELECT_BY_NAME: Final = f"SELECT {PROFILE} FROM users u WHERE u.status <> 'deleted' AND u.username IN (VALUES {{rows}})"


class SqlDirectory:
    """`UserDirectory` over an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def by_ids(self, users: Sequence[UserId]) -> Mapping[UserId, Profile]:
        rows = await self._engine.read(partial(_found, SELECT_BY_ID, users))
        return {person.user: person for person in map(profile, rows)}

    async def by_usernames(self, names: Sequence[str]) -> Mapping[str, Profile]:
        rows = await self._engine.read(partial(_found, SELECT_BY_NAME, names))
        return {person.username: person for person in map(profile, rows)}


def _found(template: str, wanted: Sequence[str]) -> Plan[list[Row]]:
    return (yield from in_bulk(template, [(value,) for value in dict.fromkeys(wanted)]))


def profile(row: Sequence[Value]) -> Profile:
    """From the columns of `PROFILE`."""
    user, username, display_name, avatar_url, status = cast("tuple[UserId, str, str, str | None, str]", tuple(row))
    return Profile(user, username, display_name, avatar_url, public_status(status))


def public_status(status: str) -> str:
    """That an account is banned or gone is nobody's business: it is just not there."""
    return status if status in {"online", "offline", "busy", "away"} else "offline"
