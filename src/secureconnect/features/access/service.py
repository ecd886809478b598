"""Is she a member, and what does that allow: the question before every deed in a conversation, cached for seconds.

A cached answer is at most `CACHE_S` old (interface.md §9, "roles": a promotion or ban acts at once on the node that made it, within 5 s
elsewhere); whoever changes membership calls `forget`, and the signal that goes with it does so on the other nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from secureconnect.errors import Forbidden, NotFound
from secureconnect.features.access.model import Membership, Standing
from secureconnect.features.access.store import AccessStore
from secureconnect.ids import ConversationId, UserId

CACHE_S = 5.0
CACHE_ENTRIES_MAX = 20_000
"""(conversation, user) pairs; about 300 bytes each. The least recently used goes first."""

Key = tuple[ConversationId, UserId]


class Access:
    """Answers about standing. `now_s` is monotonic time in seconds."""

    def __init__(self, store: AccessStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._cache: OrderedDict[Key, tuple[float, Standing]] = OrderedDict()
        self._changes = 0

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing:
        """Raises: NotFound when there is no such conversation, BackendDown."""
        key = (conversation, user)
        known = self._cache.get(key)
        if known is not None and self._now_s() - known[0] < CACHE_S:
            self._cache.move_to_end(key)
            return known[1]
        asked_s, changes = self._now_s(), self._changes
        standing = await self._store.standing(conversation, user)
        if standing is None:
            raise NotFound("There is no such conversation", details={"field": "conversation_id"})
        if changes == self._changes:  # else it may have been read before a change that we were told of
            self._cache[key] = (asked_s, standing)
            if len(self._cache) > CACHE_ENTRIES_MAX:
                self._cache.popitem(last=False)
        return standing

    async def member(self, conversation: ConversationId, user: UserId) -> tuple[Standing, Membership]:
        """Raises: NotFound (no such conversation), Forbidden (a stranger), BackendDown."""
        standing = await self.standing(conversation, user)
        if standing.membership is None:
            raise Forbidden("You are not a member of this conversation")
        return standing, standing.membership

    async def admin(self, conversation: ConversationId, user: UserId) -> Standing:
        """Like `member`, and an admin of it."""
        standing, membership = await self.member(conversation, user)
        if membership.role != "admin":
            raise Forbidden("Only an admin of the conversation may do this")
        return standing

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        return await self._store.member_ids(conversation)

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        return await self._store.conversations_of(user)

    def forget(self, conversation: ConversationId) -> None:
        """Membership or rules of `conversation` changed: ask again."""
        self._changes += 1
        for key in [k for k in self._cache if k[0] == conversation]:
            del self._cache[key]
