"""What follows a change that is stored: its entries reach the log, caches forget, other nodes and people's sockets are told.

The order matters. Who was removed must stop receiving before anything else is waited for; who was added may read from the entry
that says so, therefore only after it has its number. All but waiting for the log is synchronous: a request that is cancelled
after its transaction still tells everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, Protocol

import msgspec

from secureconnect.errors import Unavailable
from secureconnect.features.access.service import Access
from secureconnect.features.conversations.model import Conversation, conversation_object
from secureconnect.ids import ConversationId, UserId, user_channel
from secureconnect.observe import stage

encode = msgspec.json.Encoder().encode


class Announcer(Protocol):
    """The way of announcements into the log."""

    async def flush(self, conversation: ConversationId) -> None:
        """Return when what was announced in `conversation` until now is in its log. Raises: Unavailable."""
        ...


class Tidings:
    """Tells a stored change to whom it concerns. Signals go to every node, events to the people's own channels."""

    def __init__(
        self,
        access: Access,
        announcer: Announcer,
        *,
        signal: Callable[[str, bytes], None],
        publish: Callable[[str, str, bytes], object],
    ) -> None:
        self._access = access
        self._announcer = announcer
        self._signal = signal
        self._publish = publish

    async def added(self, conversation: Conversation, users: Sequence[UserId], actor: UserId) -> None:
        """`users` (at most as many as a group may have) are members now."""
        try:
            await self._flush(conversation.id)
        finally:
            self._access.forget(conversation.id)
            event = encode(conversation_object(conversation) | {"actor_id": actor})
            for user in users:
                self._tell(conversation.id, user, "added")
                self._publish(user_channel(user), "conversation.added", event)

    async def removed(self, conversation: ConversationId, user: UserId, actor: UserId) -> None:
        """`user` is no member any more."""
        self._access.forget(conversation)
        self._tell(conversation, user, "removed")
        event = {"conversation_id": conversation, "actor_id": actor, "reason": "left" if user == actor else "removed"}
        self._publish(user_channel(user), "conversation.removed", encode(event))
        await self._flush(conversation)

    async def changed(self, conversation: ConversationId, user: UserId) -> None:
        """The role of `user` changed, or `user` changed what the conversation allows."""
        self._access.forget(conversation)
        self._tell(conversation, user, "changed")
        await self._flush(conversation)

    async def _flush(self, conversation: ConversationId) -> None:
        """The change is stored whatever happens here: without a log its announcements wait beside it and follow by themselves."""
        stage.at("log.append")
        with suppress(Unavailable):
            await self._announcer.flush(conversation)

    def _tell(self, conversation: ConversationId, user: UserId, change: Literal["added", "removed", "changed"]) -> None:
        self._signal("membership", encode({"conversation_id": conversation, "user_id": user, "change": change}))
