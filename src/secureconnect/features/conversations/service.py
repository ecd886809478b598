"""Conversations: begin one, find it, name it, set its rules; who is in it is ruled in `members.py`.

Every change is one transaction of rows and announcements. When a method returns, the announcements are entries of the log too,
unless the log is away: then the change stands and its entries follow by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from secureconnect.errors import BadRequest, Forbidden
from secureconnect.features.access.model import ConversationType, Role
from secureconnect.features.access.service import Access
from secureconnect.features.conversations import entries
from secureconnect.features.conversations.entries import Deed
from secureconnect.features.conversations.members import Members, refuse_direct
from secureconnect.features.conversations.model import (
    MEMBERS_MAX,
    MEMBERS_MIN,
    PAGE_MAX,
    Conversation,
    NewMember,
    Profile,
    SettingsChange,
    Summary,
    avatar_url,
    invalid,
    title,
)
from secureconnect.features.conversations.people import People
from secureconnect.features.conversations.store import Change, Position, Store, UserDirectory
from secureconnect.features.conversations.tidings import Announcer, Tidings
from secureconnect.ids import ConversationId, UserId, direct_conversation_id
from secureconnect.observe import stage
from secureconnect.ports import Clock, Ids


@dataclass(frozen=True, slots=True)
class NewConversation:
    """What somebody asks for. The creator is a member whether named or not."""

    type: ConversationType
    participant_ids: Sequence[str] = ()
    participant_usernames: Sequence[str] = ()
    title: str | None = None
    avatar_url: str | None = None
    settings: SettingsChange = field(default_factory=SettingsChange)


@dataclass(frozen=True, slots=True)
class Looks:
    """A new name or picture. The flags say which of the two are meant: None takes away."""

    title: str | None = None
    avatar_url: str | None = None
    has_title: bool = False
    has_avatar_url: bool = False

    def applied_to(self, before: Conversation) -> Conversation:
        return replace(
            before,
            title=self.title if self.has_title else before.title,
            avatar_url=self.avatar_url if self.has_avatar_url else before.avatar_url,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list by activity. `next`: where the following part begins after; None: this was the last."""

    summaries: Sequence[Summary]
    next: Position | None


class Conversations:
    """The rules of conversations; `members` has those of membership.

    `signal(name, data)` tells every node, `publish(channel, event, data)` a person's own channel; both are synchronous.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        users: UserDirectory,
        announcer: Announcer,
        *,
        clock: Clock,
        ids: Ids,
        signal: Callable[[str, bytes], None],
        publish: Callable[[str, str, bytes], object],
    ) -> None:
        self._store = store
        self._access = access
        self._people = People(users)
        self._tidings = Tidings(access, announcer, signal=signal, publish=publish)
        self._clock = clock
        self._ids = ids
        self.members = Members(store, access, self._people, self._tidings, clock=clock, ids=ids)

    async def create(self, me: UserId, new: NewConversation) -> tuple[Summary, bool]:
        """Begin a conversation; False: it is the direct conversation that the two had already, unchanged.

        Raises: BadRequest, NotFound (`details.field`), Forbidden (E2EE_BLOCKED), BackendDown, OutcomeUnknown.
        Cancellation: it may be there nevertheless.
        """
        settings = new.settings.at_creation()
        people = await self._founders(me, new)
        now_us = self._clock.now_us()
        conversation = Conversation(
            id=self._id_for(new.type, people),
            type=new.type,
            title=title(new.title),
            avatar_url=avatar_url(new.avatar_url),
            created_by=me,
            created_us=now_us,
            updated_us=now_us,
            settings=settings,
        )
        fresh = await self._found(conversation, people)
        return await self._summary(me, conversation.id), fresh

    async def get(self, me: UserId, conversation: ConversationId) -> Summary:
        """Raises: NotFound, Forbidden, BackendDown."""
        await self._access.member(conversation, me)
        return await self._summary(me, conversation)

    async def list_of(self, me: UserId, *, limit: int, offset: int = 0, after: Position | None = None) -> Page:
        """My conversations, the most recently active first; a `limit` above `PAGE_MAX` is that. Raises: BackendDown."""
        limit = min(limit, PAGE_MAX)
        stage.at("sql")
        found = await self._store.list_of(me, limit=limit + 1, offset=offset, after=after)
        page = found[:limit]
        last = page[-1] if len(found) > limit else None
        return Page(page, Position(last.active_us, last.conversation.id) if last else None)

    async def rename(self, me: UserId, conversation: ConversationId, looks: Looks) -> Summary:
        """Change title or picture. Raises: NotFound, Forbidden (not an admin), BadRequest (nothing named), BackendDown."""
        await self._access.admin(conversation, me)
        if not (looks.has_title or looks.has_avatar_url):
            raise BadRequest("Name a title or an avatar_url", details={"field": "title"})
        cleaned = replace(looks, title=title(looks.title), avatar_url=avatar_url(looks.avatar_url))
        return await self._change(me, conversation, cleaned.applied_to)

    async def set_rules(self, me: UserId, conversation: ConversationId, change: SettingsChange) -> Summary:
        """Change settings. Raises: NotFound, Forbidden (not an admin; E2EE_BLOCKED), BadRequest (none named), BackendDown."""
        await self._access.admin(conversation, me)
        if change.is_empty:
            raise BadRequest("Name at least one setting", details={"field": "settings"})
        return await self._change(me, conversation, lambda before: replace(before, settings=change.applied_to(before.settings)))

    async def delete(self, me: UserId, conversation: ConversationId) -> None:
        """End a group for all its members: from now on there is no such conversation. Its log stays, and nobody may read it.

        Only its creator may, while a member. A direct conversation is not one's alone to end.
        Raises: NotFound, Forbidden, BadRequest (direct), BackendDown, OutcomeUnknown.
        """
        standing, _ = await self._access.member(conversation, me)
        refuse_direct(standing)
        if standing.rules.created_by != me:
            raise Forbidden("Only who created the conversation may delete it")
        deed = Deed(self._ids.new(), conversation, me, self._clock.now_us())
        stage.at("sql")
        members = await self._store.delete(conversation, partial(entries.farewell, deed))
        await self._tidings.deleted(conversation, members, me)

    async def _change(self, me: UserId, conversation: ConversationId, change: Callable[[Conversation], Conversation]) -> Summary:
        deed = Deed(self._ids.new(), conversation, me, self._clock.now_us())

        def decide(before: Conversation) -> Change | None:
            after = change(before)
            if after == before:
                return None
            after = replace(after, updated_us=deed.at_us)
            return Change(after, entries.changed(deed, before, after))

        stage.at("sql")
        if await self._store.change(conversation, decide):
            await self._tidings.changed(conversation)
        return await self._summary(me, conversation)

    async def _summary(self, me: UserId, conversation: ConversationId) -> Summary:
        stage.at("sql")
        summary = await self._store.summary(conversation, me)
        if summary is None:  # removed since the cached answer
            raise Forbidden("You are not a member of this conversation")
        return summary

    async def _founders(self, me: UserId, new: NewConversation) -> list[Profile]:
        """The creator first, then the others, once each."""
        if len(new.participant_ids) + len(new.participant_usernames) > MEMBERS_MAX:
            raise invalid("participant_ids", f"A group has at most {MEMBERS_MAX} members")
        people = await self._people.named(
            [me, *new.participant_ids],
            new.participant_usernames,
            field="participant_ids",
            field_of_names="participant_usernames",
        )
        if new.type == "direct" and len(people) != 2:
            raise invalid("participant_ids", "A direct conversation has exactly two members: you and one other")
        if not MEMBERS_MIN <= len(people) <= MEMBERS_MAX:
            raise invalid("participant_ids", f"A group has {MEMBERS_MIN} to {MEMBERS_MAX} members, you included")
        return people

    def _id_for(self, type_: ConversationType, people: Sequence[Profile]) -> ConversationId:
        if type_ == "direct":
            return direct_conversation_id(people[0].user, people[1].user)
        return ConversationId(self._ids.new())

    async def _found(self, conversation: Conversation, people: Sequence[Profile]) -> bool:
        """Store it with its members, microseconds apart so that the order named is the order of joining; False: it was there."""
        founders: list[tuple[Role, Profile]] = [("member" if place else "admin", one) for place, one in enumerate(people)]
        members = [NewMember(one.user, role, conversation.created_us + place) for place, (role, one) in enumerate(founders)]
        deed = Deed("created", conversation.id, conversation.created_by, conversation.created_us)
        stage.at("sql")
        fresh = await self._store.create(conversation, members, entries.created(deed, conversation, founders))
        if fresh:
            await self._tidings.added(conversation, [profile.user for profile in people], conversation.created_by)
        return fresh
