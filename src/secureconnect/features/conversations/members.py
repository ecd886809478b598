"""Who is in a conversation: look, invite, remove, leave, give roles.

Admins do, and members where the group lets them invite. A direct conversation keeps its two for ever. A group that has members
has an admin: when the last one leaves, the longest member becomes one. When the last member leaves, the log stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from secureconnect.errors import BadRequest, Forbidden, NotFound
from secureconnect.features.access.model import Role, Standing
from secureconnect.features.access.service import Access
from secureconnect.features.conversations import entries
from secureconnect.features.conversations.entries import Deed
from secureconnect.features.conversations.model import MEMBERS_MAX, NewMember, Participant, invalid
from secureconnect.features.conversations.people import People
from secureconnect.features.conversations.store import Store
from secureconnect.features.conversations.tidings import Tidings
from secureconnect.ids import ConversationId, UserId
from secureconnect.observe import stage
from secureconnect.ports import Clock, Ids


class Members:
    """The rules of membership."""

    def __init__(self, store: Store, access: Access, people: People, tidings: Tidings, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._access = access
        self._people = people
        self._tidings = tidings
        self._clock = clock
        self._ids = ids

    async def list_of(self, me: UserId, conversation: ConversationId) -> Sequence[Participant]:
        """All members in the order of joining. Raises: NotFound, Forbidden, BackendDown."""
        await self._access.member(conversation, me)
        stage.at("sql")
        return await self._store.participants(conversation)

    async def add(
        self, me: UserId, conversation: ConversationId, ids: Sequence[str], usernames: Sequence[str] = ()
    ) -> Sequence[UserId]:
        """Add people; who is a member already stays as is. Returns who was really added.

        Raises: NotFound, Forbidden (neither admin nor allowed to invite), BadRequest (a direct conversation; nobody named),
        GroupFull, BackendDown, OutcomeUnknown.
        """
        standing, membership = await self._access.member(conversation, me)
        if membership.role != "admin" and not standing.rules.members_may_invite:
            raise Forbidden("Only an admin of the conversation may add people")
        refuse_direct(standing)
        if not 1 <= len(ids) + len(usernames) <= MEMBERS_MAX:
            raise invalid("user_ids", f"Name 1 to {MEMBERS_MAX} users")
        people = await self._people.named(ids, usernames, field="user_ids", field_of_names="usernames")
        stage.at("sql")
        summary = await self._store.summary(conversation, me)
        if summary is None:  # removed since the cached answer
            raise Forbidden("You are not a member of this conversation")
        deed = self._deed(me, conversation)
        visible_from = 1 if summary.conversation.settings.history_visibility == "all" else None
        joins = [
            (NewMember(person.user, "member", deed.at_us + place, visible_from), entries.joined(deed, "member", person))
            for place, person in enumerate(people)
        ]
        added = await self._store.join(conversation, joins, members_max=MEMBERS_MAX)
        if added:
            await self._tidings.added(summary.conversation, added, me)
        return added

    async def remove(self, me: UserId, conversation: ConversationId, user: UserId) -> None:
        """Remove a member; oneself: leave.

        Raises: NotFound (no conversation; no such member), Forbidden, BadRequest (direct), BackendDown, OutcomeUnknown.
        """
        standing, membership = await self._access.member(conversation, me)
        if user != me and membership.role != "admin":
            raise Forbidden("Only an admin of the conversation may remove others")
        refuse_direct(standing)
        deed, face = self._deed(me, conversation), await self._people.face(user)
        stage.at("sql")
        departure = await self._store.leave(
            conversation,
            user,
            entries.left(deed, face),
            promotion=lambda heir: entries.role_changed(deed, {"user_id": heir}, "admin", part=":promoted"),
        )
        if departure is None:
            raise not_a_member()
        await self._tidings.removed(conversation, user, me)

    async def leave(self, me: UserId, conversation: ConversationId) -> None:
        """Leave. Raises: NotFound, Forbidden (a stranger), BadRequest (direct), BackendDown."""
        await self.remove(me, conversation, me)

    async def set_role(self, me: UserId, conversation: ConversationId, user: UserId, role: Role) -> None:
        """Raises: NotFound (no such member, too), Forbidden (not an admin), LastAdmin, BadRequest (direct), BackendDown."""
        refuse_direct(await self._access.admin(conversation, me))
        deed, face = self._deed(me, conversation), await self._people.face(user)
        stage.at("sql")
        changed = await self._store.set_role(conversation, user, role, entries.role_changed(deed, face, role))
        if changed is None:
            raise not_a_member()
        if changed:
            await self._tidings.changed(conversation)

    def _deed(self, me: UserId, conversation: ConversationId) -> Deed:
        return Deed(self._ids.new(), conversation, me, self._clock.now_us())


def refuse_direct(standing: Standing) -> None:
    """Raises: BadRequest."""
    if standing.rules.type == "direct":
        raise BadRequest(
            "A direct conversation keeps its two members",
            details={"field": "conversation_id", "reason": "DIRECT_CONVERSATION"},
        )


def not_a_member() -> NotFound:
    return NotFound("This user is not a member of the conversation", details={"field": "user_id"})
