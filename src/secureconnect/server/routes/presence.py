"""`/v1/presence` (contract.md §2.7, interface.md §9): who is there, and saying so oneself without a socket."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from secureconnect.errors import BadRequest
from secureconnect.features.presence.service import Presence, presence_object
from secureconnect.ids import UserId, is_uuid
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.routes.fields import Said

USERS_MAX: Final = 100
"""In one question."""


class ReadParams(msgspec.Struct, kw_only=True):
    """`user_ids`: separated by commas, or a list; at most 100."""

    user_ids: str | list[str]


class SayParams(msgspec.Struct, kw_only=True):
    """`online`: whether one is there."""

    online: bool


class PresenceObject(msgspec.Struct, kw_only=True):
    """`last_seen`: when somebody who is not there was last; absent where nobody knows."""

    user_id: str
    status: Literal["online", "offline"]
    last_seen: str | UnsetType = UNSET


class PresenceList(msgspec.Struct, kw_only=True):
    """In the order asked. `partial`: others may be online too; this node knows of its own users only."""

    presence: list[PresenceObject]
    partial: bool | UnsetType = UNSET


class PresenceRoutes:
    """From params to the service and back to what clients read."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence

    async def read(self, context: Context, params: ReadParams) -> dict[str, object]:
        found, is_partial = await self._presence.read(context.me.user, _users(params.user_ids))
        shown: dict[str, object] = {"presence": [presence_object(one) for one in found]}
        return shown | ({"partial": True} if is_partial else {})

    async def say(self, context: Context, params: SayParams) -> Said:
        await self._presence.visit(context.me.user, is_there=params.online)
        return Said("Presence updated")


def _users(given: str | list[str]) -> list[UserId]:
    """Each once, in the order given. Raises: BadRequest."""
    names = given if isinstance(given, list) else [name.strip() for name in given.split(",")]
    if len(names) > USERS_MAX:
        raise BadRequest(f"user_ids: at most {USERS_MAX} in one request", details={"field": "user_ids", "limit": USERS_MAX})
    for name in names:
        if not is_uuid(name):
            raise BadRequest("user_ids: ids of users are required, separated by commas", details={"field": "user_ids"})
    return [UserId(name) for name in dict.fromkeys(name.lower() for name in names)]


def endpoints(presence: Presence) -> list[Endpoint]:
    routes = PresenceRoutes(presence)
    return [
        Endpoint(
            name="presence.read",
            method="GET",
            path="/v1/presence",
            params=ReadParams,
            call=routes.read,
            result=PresenceList,
            features=("presence",),
            summary="Who of these is online. Of people with whom one shares no conversation the answer is offline.",
        ),
        Endpoint(
            name="presence.say",
            method="POST",
            path="/v1/presence",
            params=SayParams,
            call=routes.say,
            result=Said,
            features=("presence",),
            summary="Be online for 5 minutes without a socket, or no longer; one's sockets and polls count beside it.",
        ),
    ]
