"""Is she a member, and what does that allow: the question before every deed in a conversation, cached for seconds.

A cached answer is at most `CACHE_S` old: a promotion acts at once on the node that made it and within 5 s elsewhere, even if
the signal that tells the other nodes is lost. Whoever changes membership calls `forget`.

While the store is away, an answer serves for `AWAY_S`: who was there a moment ago goes on. What was answered so is doubtful, and
is asked again when the store is back (`recheck`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from secureconnect.errors import Forbidden, NotFound, Unavailable
from secureconnect.features.access.model import Membership, Standing
from secureconnect.features.access.store import AccessStore
from secureconnect.ids import ConversationId, UserId

CACHE_S = 5.0
AWAY_S = 300.0
"""As long while the store does not answer (failure-policy.md §2)."""
CACHE_ENTRIES_MAX = 50_000
"""Answers kept, about 300 bytes each. The conversation asked for longest ago goes first."""
LISTS_MAX = 10_000
"""Users whose lists of conversations are kept, about 50 bytes for each conversation. The one asked for longest ago goes first."""
DOUBTFUL_MAX = 20_000
"""Answers given without the store in one outage. Full: further ones are refused, for nobody could take them back."""

Known = dict[UserId, tuple[float, Standing]]


class Access:
    """Answers about standing. `now_s` is monotonic time in seconds."""

    def __init__(self, store: AccessStore, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._cache: OrderedDict[ConversationId, Known] = OrderedDict()
        self._lists: OrderedDict[UserId, tuple[float, Sequence[ConversationId]]] = OrderedDict()
        self._doubtful: dict[ConversationId, dict[UserId, None]] = {}
        self._entries = 0
        self._changes = 0
        self._doubts = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether memberships were taken for granted that are still to be asked for."""
        return bool(self._doubtful)

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing:
        """Raises: NotFound when there is no such conversation, Unavailable (the store is away, and nothing is known)."""
        try:
            return await self._sure(conversation, user)
        except Unavailable:
            if (known := self._away(conversation, user)) is not None:
                return known
            raise

    async def _sure(self, conversation: ConversationId, user: UserId) -> Standing:
        """At most `CACHE_S` old. Raises: NotFound, Unavailable."""
        if (known := self._known(conversation, user, CACHE_S)) is not None:
            return known
        asked_s, changes = self._now_s(), self._changes
        standing = await self._store.standing(conversation, user)
        if standing is None:
            self._entries -= len(self._cache.pop(conversation, {}))
            raise NotFound("There is no such conversation", details={"field": "conversation_id"})
        if changes == self._changes:  # else it may have been read before a change that we were told of
            self._keep(conversation, user, (asked_s, standing))
        return standing

    def _known(self, conversation: ConversationId, user: UserId, age_s: float) -> Standing | None:
        answer = self._cache.get(conversation, {}).get(user)
        return answer[1] if answer is not None and self._now_s() - answer[0] < age_s else None

    def _away(self, conversation: ConversationId, user: UserId) -> Standing | None:
        """The answer while the store is away; None: not known, or no more may be taken for granted."""
        known = self._known(conversation, user, AWAY_S)
        if known is None or known.membership is None:
            return known
        if user not in self._doubtful.get(conversation, {}):
            if self._doubts >= DOUBTFUL_MAX:
                return None
            self._doubtful.setdefault(conversation, {})[user] = None
            self._doubts += 1
        return known

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
        return standing, _member(standing)

    async def admin(self, conversation: ConversationId, user: UserId) -> Standing:
        """An admin of it, as the store says: what is taken for granted is not enough. Raises: as `member`."""
        standing = await self._sure(conversation, user)
        if _member(standing).role != "admin":
            raise Forbidden("Only an admin of the conversation may do this")
        return standing

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        return await self._store.member_ids(conversation)

    async def conversations_of(self, user: UserId) -> Mapping[ConversationId, Standing | None]:
        """Every conversation that `user` is a member of (for `all`); None: ask `member`. Raises: Unavailable."""
        asked_s, changes = self._now_s(), self._changes
        try:
            standings = await self._store.conversations_of(user)
        except Unavailable:
            listed_s, conversations = self._lists.get(user, (asked_s - AWAY_S, ()))
            if asked_s - listed_s >= AWAY_S:
                raise
            return {conversation: self._away(conversation, user) for conversation in conversations}
        found: dict[ConversationId, Standing | None] = {standing.rules.conversation: standing for standing in standings}
        self._lists[user] = (asked_s, tuple(found))
        self._lists.move_to_end(user)
        if len(self._lists) > LISTS_MAX:
            self._lists.popitem(last=False)
        if changes == self._changes:
            for standing in standings:
                self._keep(standing.rules.conversation, user, (asked_s, standing))
        return found

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        return await self._store.co_members(user, among)

    def forget(self, conversation: ConversationId) -> None:
        """Membership or rules of `conversation` changed: ask again."""
        self._changes += 1
        self._entries -= len(self._cache.pop(conversation, {}))

    async def recheck(self, removed: Callable[[ConversationId, UserId], None]) -> None:
        """Ask for everything that was taken for granted; `removed` is told who is no member any more.

        Raises: Unavailable, with the rest still to be asked for. Cancellation: likewise.
        """
        while self._doubtful:
            conversation = next(iter(self._doubtful))
            members = frozenset(await self._store.member_ids(conversation))
            users = self._doubtful.pop(conversation)
            self._doubts -= len(users)
            self.forget(conversation)
            for user in users:
                if user not in members:
                    removed(conversation, user)


def _member(standing: Standing) -> Membership:
    if standing.membership is None:
        raise Forbidden("You are not a member of this conversation")
    return standing.membership
