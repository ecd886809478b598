"""What conversations need kept: the things, their members, and a look into the users' directory.

Every method that changes something writes its announcements in the same transaction: either both are there or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from secureconnect.errors import Conflict
from secureconnect.features.access.model import Role
from secureconnect.features.conversations.model import Conversation, Departure, NewMember, Participant, Profile, Summary
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId, UserId


class GroupFull(Conflict):
    """The group would have more members than a group may have; nobody was added."""


class LastAdmin(Conflict):
    """A group keeps at least one admin; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a decision makes of a conversation, and how it is announced."""

    conversation: Conversation
    entry: NewEntry


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list by activity: what follows it is older, or as old with a lower id."""

    active_us: int
    conversation: ConversationId


class ConversationStore(Protocol):
    """Conversations themselves."""

    async def create(self, conversation: Conversation, members: Sequence[NewMember], entry: NewEntry) -> bool:
        """Keep a new conversation; False, and nothing changed, when its id is there already.

        Raises: BackendDown, OutcomeUnknown.
        """
        ...

    async def change(self, conversation: ConversationId, decide: Callable[[Conversation], Change | None]) -> bool:
        """Let `decide` look at the conversation and write what it makes of it, in one transaction that no other change can enter.

        `decide` is pure, may run more than once and on another thread; what it raises undoes the transaction and passes
        unchanged; None: leave all as it is. Returns whether something was written (never for an unknown conversation).
        Raises: BackendDown, OutcomeUnknown.
        """
        ...

    async def delete(self, conversation: ConversationId, farewell: Callable[[UserId], NewEntry]) -> Sequence[UserId]:
        """Remove a conversation and its members, each of whom is announced by `farewell` (pure) as leaving.

        Its log stays where it is, out of everybody's reach. Returns who were members, in the order of joining; nobody, and
        nothing changed, when there is no such conversation. Raises: BackendDown, OutcomeUnknown.
        """
        ...

    async def summary(self, conversation: ConversationId, user: UserId) -> Summary | None:
        """The conversation as `user`'s list shows it; None when there is none or `user` is no member. Raises: BackendDown."""
        ...

    async def list_of(self, user: UserId, *, limit: int, offset: int = 0, after: Position | None = None) -> Sequence[Summary]:
        """The conversations of `user`, the most recently active first, equals by id from the highest.

        `after`: only what follows that place. Raises: BackendDown.
        """
        ...


class MemberStore(Protocol):
    """Who is in a conversation."""

    async def participants(self, conversation: ConversationId) -> Sequence[Participant]:
        """All members with their faces, in the order of joining. Raises: BackendDown."""
        ...

    async def join(
        self, conversation: ConversationId, members: Sequence[tuple[NewMember, NewEntry]], *, members_max: int
    ) -> Sequence[UserId]:
        """Add who is not a member yet, each announced by the entry beside; returns those, in the order given (nobody when there
        is no such conversation).

        Each announcement names its member as `joined`.
        Raises: GroupFull when there would be more than `members_max`, BackendDown, OutcomeUnknown.
        """
        ...

    async def leave(
        self, conversation: ConversationId, user: UserId, entry: NewEntry, *, promotion: Callable[[UserId], NewEntry]
    ) -> Departure | None:
        """Remove a member; when members but no admin remain, the longest member becomes one, announced by `promotion` (pure).

        None, and nothing changed, when `user` is no member. Raises: BackendDown, OutcomeUnknown.
        """
        ...

    async def set_role(self, conversation: ConversationId, user: UserId, role: Role, entry: NewEntry) -> bool | None:
        """Change a member's role: True when it changed, False when it was so already, None when `user` is no member.

        Raises: LastAdmin when no admin would remain, BackendDown, OutcomeUnknown.
        """
        ...


class Store(ConversationStore, MemberStore, Protocol):
    """Both, because one transaction spans them."""


class UserDirectory(Protocol):
    """Who exists, by what everybody may know. Accounts that were deleted are left out."""

    async def by_ids(self, users: Sequence[UserId]) -> Mapping[UserId, Profile]:
        """Raises: BackendDown."""
        ...

    async def by_usernames(self, names: Sequence[str]) -> Mapping[str, Profile]:
        """By exact user names. Raises: BackendDown."""
        ...
