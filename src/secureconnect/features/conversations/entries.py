"""What conversations say in their logs: one function per kind of entry, each with the names that clients show beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from secureconnect.features.access.model import Role
from secureconnect.features.conversations.model import (
    SHOWN_AT_CREATION_MAX,
    Conversation,
    Profile,
    conversation_object,
    profile_object,
)
from secureconnect.features.log.model import (
    CONVERSATION_CHANGED,
    CONVERSATION_CREATED,
    MEMBER_JOINED,
    MEMBER_LEFT,
    MEMBER_ROLE_CHANGED,
    NewEntry,
)
from secureconnect.ids import ConversationId, UserId
from secureconnect.ports import rfc3339

encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Deed:
    """Who did something where and when. `key` makes its entry's idempotency key; deeds of several entries add to it."""

    key: str
    conversation: ConversationId
    actor: UserId
    at_us: int

    def entry(self, kind: str, fields: dict[str, object], *, part: str = "") -> NewEntry:
        said = {"conversation_id": self.conversation, "actor_id": self.actor, "at": rfc3339(self.at_us), **fields}
        return NewEntry(key=self.key + part, kind=kind, data=encode(said), actor=self.actor, at_us=self.at_us)


def created(deed: Deed, conversation: Conversation, members: Sequence[tuple[Role, Profile]]) -> NewEntry:
    """The first entry. Of a large group it shows the first members only; `participants_count` says how many there are."""
    shown = [{"role": role, **profile_object(profile)} for role, profile in members[:SHOWN_AT_CREATION_MAX]]
    fields = conversation_object(conversation) | {"participants_count": len(members), "participants": shown}
    return deed.entry(CONVERSATION_CREATED, fields)


def changed(deed: Deed, before: Conversation, after: Conversation) -> NewEntry:
    """What is different now, under `changes`, named as in the conversation object; null for what is gone."""
    old, new = conversation_object(before), conversation_object(after)
    changes = {name: new.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
    return deed.entry(CONVERSATION_CHANGED, {"changes": changes})


def joined(deed: Deed, role: Role, profile: Profile) -> NewEntry:
    return deed.entry(MEMBER_JOINED, {"role": role, **profile_object(profile)}, part=":" + profile.user)


def farewell(deed: Deed, user: UserId) -> NewEntry:
    """A member's leaving because the conversation is deleted. Nobody will read it, so it shows no names."""
    return deed.entry(MEMBER_LEFT, {"user_id": user, "reason": "deleted"}, part=":" + user)


def left(deed: Deed, face: dict[str, object]) -> NewEntry:
    """`reason`: `left` by the own will, `removed` by an admin. `face`: the member's id and what is known to show of her."""
    return deed.entry(MEMBER_LEFT, {**face, "reason": "left" if face["user_id"] == deed.actor else "removed"})


def role_changed(deed: Deed, face: dict[str, object], role: Role, *, part: str = "") -> NewEntry:
    return deed.entry(MEMBER_ROLE_CHANGED, {**face, "role": role}, part=part)
