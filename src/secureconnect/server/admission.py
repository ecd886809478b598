"""Who may listen to which channel, asked alike for sockets, polls and streams; and what clients write when they name channels.

Permission can be withdrawn at any moment, also while a place is being taken: between the answer "she is a member" and the place
in the hub lies a wait. So whoever takes places does it inside `Places.taking`, and what was withdrawn meanwhile is given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import TypeAlias, TypeVar

import msgspec
import structlog

from secureconnect.errors import BadRequest, Forbidden, Unavailable
from secureconnect.features.access.model import SEES_NOTHING
from secureconnect.features.access.service import Access
from secureconnect.hub import HubError, Peer, Place
from secureconnect.ids import ConversationId, SessionId, UserId, conversation_channel, user_channel

CHANNEL_LENGTH_MAX = 128
"""Ours are under 50 characters; what is longer names nothing and should not travel further."""
EVERYTHING = "all"
T = TypeVar("T", bound=msgspec.Struct)

_log = structlog.get_logger("secureconnect.admission")
_CONVERSATION = "conversation:"
_USER = "user:"

After = Mapping[str, int | str]
"""Up to which position a client has everything, by channel."""


class Start(Enum):
    """Where a place begins in a channel of which the client has no position."""

    NOW = "now"
    """With what comes next."""
    JOINED = "joined"
    """With the entry that made the user a member: the client was here before, and everything there is new to it."""


Beginning: TypeAlias = int | str | Start
"""What a place begins behind: the client's position, or what is said instead of one."""


class Admission(msgspec.Struct, frozen=True):
    """Permission to listen. `first`: the lowest sequence that may be read. `joined`: that with which the membership began."""

    first: int
    joined: int | None = None

    def behind(self, beginning: Beginning) -> int | str | None:
        """The position to take a place behind; None: the channel's end, also where nobody knows when the user joined."""
        if not isinstance(beginning, Start):
            return beginning
        return None if beginning is Start.NOW or self.joined is None else self.joined - 1


class Places:
    """One peer's places, held only as long as they are permitted."""

    __slots__ = ("_taking", "_withdrawn", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._taking = 0
        self._withdrawn: dict[str, None] | None = None

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Ask for permission and take places inside this."""
        self._taking += 1
        try:
            yield
        finally:
            self._taking -= 1
            if not self._taking:
                self._withdrawn = None

    async def take(self, channel: str, *, after: int | str | None, first: int) -> Place:
        """A place in `channel`, silent until `peer.start`. Call inside `taking`, behind the question for permission.

        Raises: Forbidden (permission was withdrawn meanwhile), Unavailable (the channel's log cannot be read now).
        Cancellation: no place is taken.
        """
        assert self._taking
        try:
            place = await self.peer.prepare(channel, after=after, first=first)
        except HubError as error:
            raise Unavailable("This channel cannot be joined now; try again") from error
        if self.is_withdrawn(channel):
            self.peer.leave(channel)
            raise Forbidden("You are not a member of this conversation")
        return place

    def is_withdrawn(self, channel: str) -> bool:
        """Whether permission for `channel` went away since the taking began."""
        return self._withdrawn is not None and channel in self._withdrawn

    def withdraw(self, channel: str) -> bool:
        """Permission is gone: leave at once, and let no place under way be taken. False: there was none."""
        if self._taking:
            self._withdrawn = self._withdrawn or {}
            self._withdrawn[channel] = None
        return self.peer.leave(channel)


async def admit(access: Access, user: UserId, channel: str) -> Admission:
    """What `user` may read of `channel`.

    Raises: BadRequest (no such kind of channel), NotFound, Forbidden, Unavailable.
    """
    if channel.startswith(_CONVERSATION) and len(channel) <= CHANNEL_LENGTH_MAX:
        _, membership = await access.member(ConversationId(channel.removeprefix(_CONVERSATION)), user)
        if membership.visible_from == SEES_NOTHING:
            raise Unavailable("Your joining is not in the conversation's log yet; try again")
        return Admission(membership.visible_from, membership.joined_sequence)
    if channel.startswith(_USER):
        if channel != user_channel(user):
            raise Forbidden("Only one's own user channel can be listened to")
        return Admission(1)
    shown = channel[:CHANNEL_LENGTH_MAX]
    raise BadRequest(f"channels: there is no channel {shown!r}; for example conversation:<id>", details={"field": "channels"})


async def everything(access: Access, user: UserId) -> dict[str, Admission | None]:
    """What `all` means: one's own channel and every conversation, each with what may be read of it.

    None where that is not known yet and `admit` must be asked. Raises: Unavailable.
    """
    found: dict[str, Admission | None] = {user_channel(user): Admission(1)}
    for conversation, standing in (await access.conversations_of(user)).items():
        mine = None if standing is None else standing.membership
        is_known = mine is not None and mine.visible_from != SEES_NOTHING
        found[conversation_channel(conversation)] = (
            Admission(mine.visible_from, mine.joined_sequence) if mine is not None and is_known else None
        )
    return found


class SessionEnded(msgspec.Struct):
    """The signal `session.ended`: a login session is over, and with it everything that its tokens opened."""

    session_id: SessionId
    user_id: UserId
    reason: str = "logout"


class MembershipChanged(msgspec.Struct):
    """The signal `membership`. `change`: added, removed, changed. `reason`, of `removed`: left, removed, deleted."""

    conversation_id: ConversationId
    user_id: UserId
    change: str
    reason: str = "removed"


def read_signal(data: bytes, kind: type[T]) -> T | None:
    """A signal's data; None, and a line in the log, when another version of the server says something else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError:
        _log.warning("unknown_signal", expected=kind.__name__)
        return None


def read_channels(given: str | list[str], *, most: int) -> dict[str, None]:
    """The names in `a,b` or `["a", "b"]`, each once, in order. Raises: BadRequest for more than `most`."""
    names = given if isinstance(given, list) else [name.strip() for name in given.split(",")]
    if len(names) > most:
        raise BadRequest(f"channels: at most {most} in one request", details={"field": "channels"})
    return dict.fromkeys(names)


def read_after(given: str | Mapping[str, int | str] | None) -> After | None:
    """`channel:position,…` (a position is what follows the last colon) or an object; None when the client has no position yet.

    Raises: BadRequest.
    """
    if not given:
        return None
    if not isinstance(given, str):
        return {channel: _position(channel, place) for channel, place in given.items()}
    after: dict[str, int | str] = {}
    for part in given.split(","):
        channel, _, place = part.strip().rpartition(":")
        if not channel:
            raise BadRequest("after: channel:position is required, separated by commas", details={"field": "after"})
        after[channel] = _position(channel, place)
    return after


def _position(channel: str, given: int | str) -> int | str:
    """A sequence for conversations, `epoch-offset` elsewhere."""
    if not channel.startswith(_CONVERSATION):
        if isinstance(given, str) and len(given) <= CHANNEL_LENGTH_MAX:
            return given
    elif isinstance(given, int):
        if 0 <= given < 2**63:
            return given
    elif given.isascii() and given.isdecimal() and len(given) < 19:
        return int(given)
    raise BadRequest(f"after: this is no position in {channel[:CHANNEL_LENGTH_MAX]}", details={"field": "after"})
