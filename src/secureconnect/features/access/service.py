"""Is she a member, and what does that allow: the question before every deed in a conversation, cached for seconds.

A cached answer is at most `CACHE_S` old: a promotion acts at once on the node that made it and within 5 s elsewhere, even if
the signal that tells the other nodes is lost. Whoever changes membership calls `forget`. While the store is away, an answer
serves for `AWAY_S`: who was there a moment ago goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from secureconnect.errors import Forbidden, NotFound, Unavailable
from secureconnect.features.access.model import Membership, Standing
from secureconnect.features.access.store import AccessStore
from secureconnect.ids import ConversationId, UserId

CACHE_S = 5.0
AWAY_S = 300.0
"""As long while the store does not answer (failure-policy.md §2)."""
CACHE_ENTRIES_MAX = 20_000
"""Answers kept, about 300 bytes each. The conversation asked for longest ago goes first."""

Known = dict[UserId, tuple[float, Standing]]


class Access:
    """Answers about standing. `now_s` is monotonic time in seconds."""

    def __init__(self, store: AccessStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._cache: OrderedDict[ConversationId, Known] = OrderedDict()
        self._entries = 0
        self._changes = 0

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing:
        """Raises: NotFound when there is no such conversation, Unavailable."""
        if (known := self._known(conversation, user, CACHE_S)) is not None:
            return known
        asked_s, changes = self._now_s(), self._changes
        try:
            standing = await self._store.standing(conversation, user)
        except Unavailable:
            if (known := self._known(conversation, user, AWAY_S)) is not None:
                return known
            raise
        if standing is None:
            raise NotFound("There is no such conversation", details={"field": "conversation_id"})
        if changes == self._changes:  # else it may have been read before a change that we were told of
            self._keep(conversation, user, (asked_s, standing))
        return standing

    def _known(self, conversation: ConversationId, user: UserId, age_s: float) -> Standing | None:
        answer = self._cache.get(conversation, {}).get(user)
        return answer[1] if answer is not None and self._now_s() - answer[0] < age_s else None

    def _keep(self, conversation: ConversationId, user: UserId, answer: tuple[float, Standing]) -> None:
        known = self._cache.setdefault(conversation, {})
        self._entries += user not in known
        known[user] = answer
        self._cache.move_to_end(conversation)
        while self._entries > CACHE_ENTRIES_MAX:
            self._entries -= len(self._cache.popitem(last=False)[1])

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

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        return await self._store.co_members(user, among)

    def forget(self, conversation: ConversationId) -> None:
        """Membership or rules of `conversation` changed: ask again."""
        self._changes += 1
        self._entries -= len(self._cache.pop(conversation, {}))
