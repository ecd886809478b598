"""What access needs to know; the conversations' store implements it beside its own protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secureconnect.features.access.model import Standing
from secureconnect.ids import ConversationId, UserId


class AccessStore(Protocol):
    """Read-only questions about membership."""

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        """How `user` stands to `conversation`; None when there is no such conversation. Raises: BackendDown."""
        ...

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        """All members in the order of joining; empty for an unknown conversation. Raises: BackendDown."""
        ...

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        """Every conversation that `user` is a member of, in no promised order (for `subscribe all`). Raises: BackendDown."""
        ...

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        """Those `among` these who share a conversation with `user`, each once, in no promised order. Raises: BackendDown."""
        ...
