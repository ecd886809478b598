"""Membership: the one fact that almost every question about a conversation comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from secureconnect.ids import ConversationId, UserId

Role = Literal["admin", "member"]
ConversationType = Literal["direct", "group"]


SEES_NOTHING: Final = 2**53 - 1
"""`visible_from` of a member whose `member.joined` entry has no number yet: above every sequence, and still a number that JSON's
readers hold exactly (RFC 8259 §6)."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One user in one conversation. `visible_from`: the lowest sequence that this member may read (`SEES_NOTHING`: none yet).

    `joined_sequence`: of the entry with which the membership began: its `member.joined`, or the log's first for a founder. None:
    it has no number yet, or is of a time when this was not kept.
    """

    conversation: ConversationId
    user: UserId
    role: Role
    joined_at_us: int
    visible_from: int = 1
    joined_sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a conversation is and demands, as far as permission depends on it."""

    conversation: ConversationId
    type: ConversationType
    created_by: UserId
    is_e2ee_enabled: bool
    ai_enabled: bool
    members_may_invite: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer about one user and one existing conversation; `membership` is None for a stranger."""

    rules: Rules
    membership: Membership | None
