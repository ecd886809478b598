"""What a conversation is, what its settings allow, and how clients read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Final, Literal

from secureconnect.errors import BadRequest, Forbidden
from secureconnect.features.access.model import ConversationType, Role
from secureconnect.ids import ConversationId, UserId
from secureconnect.ports import rfc3339

HistoryVisibility = Literal["all", "from_join"]

TITLE_CHARS_MAX: Final = 200
AVATAR_URL_CHARS_MAX: Final = 2_048
"""What browsers and proxies are known to carry."""
MEMBERS_MIN: Final = 2
MEMBERS_MAX: Final = 1_000
"""Members of a group; one deed's entries and a roster of this size still fit into one transaction and one answer."""
RETENTION_DAYS_MAX: Final = 3_650
PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 100
SHOWN_AT_CREATION_MAX: Final = 50
"""Participants written out in `conversation.created`, about 200 bytes each; who wants all of a larger group asks for them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a conversation allows; the defaults are those of old clients, which never say."""

    is_e2ee_enabled: bool = True
    ai_enabled: bool = False
    recording_enabled: bool = False
    message_retention_days: int = 30
    members_may_invite: bool = False
    history_visibility: HistoryVisibility = "from_join"


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """The settings that a request names; None: as it is."""

    is_e2ee_enabled: bool | None = None
    ai_enabled: bool | None = None
    recording_enabled: bool | None = None
    message_retention_days: int | None = None
    members_may_invite: bool | None = None
    history_visibility: HistoryVisibility | None = None

    @property
    def is_empty(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))

    def applied_to(self, before: Settings) -> Settings:
        """The settings afterwards. Under encryption the server cannot read, so switching it on switches AI off.

        Raises: Forbidden (E2EE_BLOCKED) when AI is asked for while messages are encrypted end to end.
        """
        after = replace(before, **{f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None})
        if not (after.is_e2ee_enabled and after.ai_enabled):
            return after
        if self.ai_enabled:
            raise Forbidden("AI cannot work on messages that are encrypted end to end", code="E2EE_BLOCKED")
        return replace(after, ai_enabled=False)

    def at_creation(self) -> Settings:
        """The settings of a new conversation: who joins later sees what was before only where the server can read it too."""
        encrypted = self.is_e2ee_enabled is not False
        return self.applied_to(Settings(history_visibility="from_join" if encrypted else "all"))


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it is stored."""

    id: ConversationId
    type: ConversationType
    title: str | None
    avatar_url: str | None
    created_by: UserId
    created_us: int
    updated_us: int
    settings: Settings


@dataclass(frozen=True, slots=True)
class Profile:
    """What everybody may know of a user: never the e-mail address."""

    user: UserId
    username: str
    display_name: str
    avatar_url: str | None = None
    status: str = "offline"


@dataclass(frozen=True, slots=True)
class Participant:
    """A member with a face."""

    role: Role
    joined_us: int
    profile: Profile


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation as one member's list shows it. `tail` and `messages` are its log's head, `active_us` the time of its last
    entry, `peer` the other one of a direct conversation."""

    conversation: Conversation
    role: Role
    participants: int
    tail: int
    messages: int
    active_us: int
    peer: Profile | None = None


@dataclass(frozen=True, slots=True)
class NewMember:
    """Somebody who is to be a member. `visible_from` None: from the number that the own `member.joined` entry will get."""

    user: UserId
    role: Role
    joined_us: int
    visible_from: int | None = 1


@dataclass(frozen=True, slots=True)
class Departure:
    """What leaving did. `promoted`: the longest member, when no admin was left."""

    promoted: UserId | None = None


def title(text: str | None) -> str | None:
    """A title as it is kept: trimmed, None for nothing. Raises: BadRequest."""
    if text is None or not text.strip():
        return None
    trimmed = text.strip()
    if len(trimmed) > TITLE_CHARS_MAX:
        raise invalid("title", f"A title has at most {TITLE_CHARS_MAX} characters")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in trimmed):
        raise invalid("title", "A title has no control characters")
    return trimmed


def avatar_url(text: str | None) -> str | None:
    """An address that a browser may show as a picture, None for nothing. Raises: BadRequest."""
    if not text:
        return None
    if len(text) > AVATAR_URL_CHARS_MAX or not text.lower().startswith(("https://", "http://")):
        raise invalid("avatar_url", f"An avatar is an http or https address of at most {AVATAR_URL_CHARS_MAX} characters")
    if not text.isprintable() or " " in text:
        raise invalid("avatar_url", "An address has no blanks or control characters")
    return text


def invalid(field: str, message: str) -> BadRequest:
    return BadRequest(message, details={"field": field})


def conversation_object(conversation: Conversation) -> dict[str, object]:
    """What clients know as a conversation: its label under both names, its settings flat and nested."""
    settings = asdict(conversation.settings)
    shown: dict[str, object] = {
        "conversation_id": conversation.id,
        "type": conversation.type,
        "title": conversation.title,
        "name": conversation.title,
        "created_by": conversation.created_by,
        "created_at": rfc3339(conversation.created_us),
        "updated_at": rfc3339(conversation.updated_us),
        **settings,
        "settings": settings,
    }
    if conversation.avatar_url is not None:
        shown["avatar_url"] = conversation.avatar_url
    return shown


def summary_object(summary: Summary) -> dict[str, object]:
    """The conversation with what one member's list needs beside it; `updated_at` follows activity, as old clients sort by it."""
    conversation = summary.conversation
    shown = conversation_object(conversation) | {
        "updated_at": rfc3339(max(conversation.updated_us, summary.active_us)),
        "role": summary.role,
        "participants_count": summary.participants,
        "sequence": summary.tail,
        "message_count": summary.messages,
        "last_activity_at": rfc3339(summary.active_us),
    }
    if summary.peer is not None:
        shown["peer"] = profile_object(summary.peer)
    return shown


def profile_object(profile: Profile) -> dict[str, object]:
    shown: dict[str, object] = {
        "user_id": profile.user,
        "username": profile.username,
        "display_name": profile.display_name,
        "status": profile.status,
    }
    if profile.avatar_url is not None:
        shown["avatar_url"] = profile.avatar_url
    return shown


def participant_object(conversation: ConversationId, participant: Participant) -> dict[str, object]:
    return {
        "conversation_id": conversation,
        "role": participant.role,
        "joined_at": rfc3339(participant.joined_us),
        **profile_object(participant.profile),
    }
