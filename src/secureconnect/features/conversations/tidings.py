"""What follows a change that is stored: its entries reach the log, caches forget, other nodes and people's sockets are told.

The order matters. Who was removed must stop receiving before anything else is waited for; who was added may read from the entry
that says so, therefore only after it has its number.

A request may be cancelled in the very moment in which its transaction commits, and then does nothing more. So the signals that
change what sockets may receive do not depend on it: the announcement was written in that transaction, and who tells it, at once
or after a crash, gives them (`MembershipSignals`). `Tidings` only says a removal sooner than that, and the news of people's own
channels, which their lists of conversations show too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from secureconnect.errors import Unavailable
from secureconnect.features.access.service import Access
from secureconnect.features.conversations.model import Conversation, conversation_object
from secureconnect.features.log.announcer import Announcement
from secureconnect.features.log.model import (
    CONVERSATION_CHANGED,
    CONVERSATION_CREATED,
    MEMBER_JOINED,
    MEMBER_LEFT,
    MEMBER_ROLE_CHANGED,
)
from secureconnect.ids import ConversationId, UserId, user_channel
from secureconnect.observe import stage

encode = msgspec.json.Encoder().encode
Change: TypeAlias = Literal["added", "removed", "changed"]
Signal: TypeAlias = Callable[[str, bytes], None]

CHANGES: Final[Mapping[str, Change]] = {
    MEMBER_JOINED: "added",
    MEMBER_LEFT: "removed",
    MEMBER_ROLE_CHANGED: "changed",
    CONVERSATION_CHANGED: "changed",
}


class _Whom(msgspec.Struct):
    """Whom an entry of ours is about: a member, or who did it; and why, if she is none any more."""

    actor_id: UserId
    user_id: UserId | None = None
    reason: str | None = None


_decoder = msgspec.json.Decoder(_Whom)


class MembershipSignals:
    """Tells every node what an announcement changes; who hears it twice acts once. For the announcer: `told`."""

    def __init__(self, access: Access, *, signal: Signal) -> None:
        self._access = access
        self._signal = signal

    async def told(self, announcements: Sequence[Announcement]) -> None:
        """Signal what these, in the log now, say of membership. Raises: BackendDown, nothing or a part is signalled."""
        for announcement in announcements:
            conversation, entry = announcement.conversation, announcement.entry
            if entry.kind == CONVERSATION_CREATED:  # it shows only the first members
                for user in await self._access.member_ids(conversation):
                    self.tell(conversation, user, "added")
            elif (change := CHANGES.get(entry.kind)) is not None:
                whom = _decoder.decode(entry.data)
                self.tell(conversation, whom.user_id or whom.actor_id, change, whom.reason)

    def tell(self, conversation: ConversationId, user: UserId, change: Change, reason: str | None = None) -> None:
        """`reason`: why the user is no member any more: left, removed, deleted."""
        self._access.forget(conversation)
        said = {"conversation_id": conversation, "user_id": user, "change": change}
        self._signal("membership", encode(said if reason is None else said | {"reason": reason}))


class Announcer(Protocol):
    """The way of announcements into the log."""

    async def flush(self, conversation: ConversationId) -> None:
        """Return when what was announced in `conversation` until now is in its log. Raises: Unavailable."""
        ...


class Tidings:
    """Tells a stored change to whom it concerns. Events go to the people's own channels."""

    def __init__(
        self, access: Access, announcer: Announcer, *, signal: Signal, publish: Callable[[str, str, bytes], object]
    ) -> None:
        self._access = access
        self._announcer = announcer
        self._signals = MembershipSignals(access, signal=signal)
        self._publish = publish

    async def added(self, conversation: Conversation, users: Sequence[UserId], actor: UserId) -> None:
        """`users` (at most as many as a group may have) are members now."""
        try:
            await self._flush(conversation.id)
        finally:
            self._access.forget(conversation.id)
            event = encode(conversation_object(conversation) | {"actor_id": actor})
            for user in users:
                self._publish(user_channel(user), "conversation.added", event)

    async def removed(self, conversation: ConversationId, user: UserId, actor: UserId) -> None:
        """`user` is no member any more."""
        self._part(conversation, user, actor, "left" if user == actor else "removed")
        await self._flush(conversation)

    async def deleted(self, conversation: ConversationId, users: Sequence[UserId], actor: UserId) -> None:
        """The conversation is gone, and `users` were its members."""
        for user in users:
            self._part(conversation, user, actor, "deleted")
        await self._flush(conversation)

    async def changed(self, conversation: ConversationId) -> None:
        """A role changed, or what the conversation allows."""
        self._access.forget(conversation)
        await self._flush(conversation)

    def _part(self, conversation: ConversationId, user: UserId, actor: UserId, reason: str) -> None:
        self._signals.tell(conversation, user, "removed", reason)
        event = {"conversation_id": conversation, "actor_id": actor, "reason": reason}
        self._publish(user_channel(user), "conversation.removed", encode(event))

    async def _flush(self, conversation: ConversationId) -> None:
        """The change is stored whatever happens here: without a log its announcements wait beside it and follow by themselves."""
        stage.at("log.append")
        with suppress(Unavailable):
            await self._announcer.flush(conversation)
