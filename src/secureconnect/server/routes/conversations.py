"""`/v1/conversations` (contract.md §2.5, interface.md §9): the conversations themselves, their settings, their members."""

from __future__ import annotations

from functools import partial
from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from secureconnect.features.access.model import ConversationType, Role
from secureconnect.features.conversations import model
from secureconnect.features.conversations.cursor import read_cursor, write_cursor
from secureconnect.features.conversations.model import (
    HistoryVisibility,
    SettingsChange,
    participant_object,
    summary_object,
)
from secureconnect.features.conversations.service import Conversations, Looks, NewConversation
from secureconnect.features.conversations.store import GroupFull, LastAdmin
from secureconnect.ids import ConversationId, UserId
from secureconnect.server.endpoints import Answer, Context, Endpoint
from secureconnect.server.routes.fields import Limit, Offset, Said, Uuid

RetentionDays: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=model.RETENTION_DAYS_MAX)]
Json: TypeAlias = dict[str, object]


class SettingsFields(msgspec.Struct, kw_only=True):
    """Settings that a request names; the others stay."""

    is_e2ee_enabled: bool | None = None
    ai_enabled: bool | None = None
    recording_enabled: bool | None = None
    message_retention_days: RetentionDays | None = None
    members_may_invite: bool | None = None
    history_visibility: HistoryVisibility | None = None

    def change(self) -> SettingsChange:
        return SettingsChange(
            is_e2ee_enabled=self.is_e2ee_enabled,
            ai_enabled=self.ai_enabled,
            recording_enabled=self.recording_enabled,
            message_retention_days=self.message_retention_days,
            members_may_invite=self.members_may_invite,
            history_visibility=self.history_visibility,
        )


class CreateParams(SettingsFields, kw_only=True):
    """The creator is a member whether named or not. Without `is_e2ee_enabled` messages are encrypted end to end."""

    type: ConversationType
    title: str | None = None
    avatar_url: str | None = None
    participant_ids: list[str] = []
    participant_usernames: list[str] = []


class ListParams(msgspec.Struct, kw_only=True):
    """`cursor` (`next_cursor` of the page before) or `offset`."""

    limit: Limit = model.PAGE_DEFAULT
    offset: Offset = 0
    cursor: Annotated[str, msgspec.Meta(max_length=128)] | None = None


class ConversationParams(msgspec.Struct, kw_only=True):
    conversation_id: Uuid

    @property
    def id(self) -> ConversationId:
        return ConversationId(self.conversation_id.lower())


class UpdateParams(ConversationParams, kw_only=True):
    """null takes away."""

    title: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET


class SettingsParams(SettingsFields, kw_only=True):
    """At least one setting."""

    conversation_id: Uuid


class AddParams(ConversationParams, kw_only=True):
    user_ids: list[str] = []
    usernames: list[str] = []


class MemberParams(ConversationParams, kw_only=True):
    user_id: Uuid

    @property
    def user(self) -> UserId:
        return UserId(self.user_id.lower())


class RoleParams(MemberParams, kw_only=True):
    role: Role


class SettingsObject(msgspec.Struct, kw_only=True):
    is_e2ee_enabled: bool
    ai_enabled: bool
    recording_enabled: bool
    message_retention_days: int
    members_may_invite: bool
    history_visibility: HistoryVisibility


class FaceObject(msgspec.Struct, kw_only=True):
    """What everybody may know of a user."""

    user_id: str
    username: str
    display_name: str
    status: str
    avatar_url: str | UnsetType = UNSET


class ConversationObject(SettingsObject, kw_only=True):
    """A conversation as its member sees it. `name` is `title`; the settings are flat and nested; `sequence` is the last of its
    log; `peer` is the other one of a direct conversation."""

    conversation_id: str
    type: ConversationType
    title: str | None
    name: str | None
    avatar_url: str | UnsetType = UNSET
    created_by: str
    created_at: str
    updated_at: str
    last_activity_at: str
    settings: SettingsObject
    role: Role
    participants_count: int
    sequence: int
    message_count: int
    peer: FaceObject | UnsetType = UNSET


class ChangedObject(ConversationObject, kw_only=True):
    """The conversation as it is now, and a sentence for people."""

    message: str


class ConversationList(msgspec.Struct):
    conversations: list[ConversationObject]
    limit: int
    offset: int
    next_cursor: str | None
    has_more: bool


class ParticipantObject(FaceObject, kw_only=True):
    conversation_id: str
    role: Role
    joined_at: str


class ParticipantList(msgspec.Struct):
    participants: list[ParticipantObject]


class AddedObject(msgspec.Struct):
    """`added`: who was no member before."""

    message: str
    added: list[str]


class ConversationRoutes:
    """From params to the service and back to what clients read."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._members = conversations.members

    async def create(self, context: Context, params: CreateParams) -> Answer:
        new = NewConversation(
            type=params.type,
            participant_ids=params.participant_ids,
            participant_usernames=params.participant_usernames,
            title=params.title,
            avatar_url=params.avatar_url,
            settings=params.change(),
        )
        summary, fresh = await self._conversations.create(context.me.user, new)
        return Answer(summary_object(summary), status=201 if fresh else 200)

    async def list(self, context: Context, params: ListParams) -> Json:
        limit = min(params.limit, model.PAGE_MAX)
        after = read_cursor(params.cursor) if params.cursor else None
        page = await self._conversations.list_of(context.me.user, limit=limit, offset=params.offset, after=after)
        return {
            "conversations": [summary_object(summary) for summary in page.summaries],
            "limit": limit,
            "offset": params.offset,
            "next_cursor": write_cursor(page.next) if page.next else None,
            "has_more": page.next is not None,
        }

    async def get(self, context: Context, params: ConversationParams) -> Json:
        return summary_object(await self._conversations.get(context.me.user, params.id))

    async def update(self, context: Context, params: UpdateParams) -> Json:
        looks = Looks(
            title=params.title or None,
            avatar_url=params.avatar_url or None,
            has_title=params.title is not UNSET,
            has_avatar_url=params.avatar_url is not UNSET,
        )
        summary = await self._conversations.rename(context.me.user, params.id, looks)
        return summary_object(summary) | {"message": "Conversation updated"}

    async def delete(self, context: Context, params: ConversationParams) -> Said:
        await self._conversations.delete(context.me.user, params.id)
        return Said("Conversation deleted")

    async def settings(self, context: Context, params: SettingsParams) -> Json:
        conversation = ConversationId(params.conversation_id.lower())
        summary = await self._conversations.set_rules(context.me.user, conversation, params.change())
        return summary_object(summary) | {"message": "Settings updated"}

    async def participants(self, context: Context, params: ConversationParams) -> Json:
        members = await self._members.list_of(context.me.user, params.id)
        return {"participants": [participant_object(params.id, member) for member in members]}

    async def add(self, context: Context, params: AddParams) -> AddedObject:
        added = await self._members.add(context.me.user, params.id, params.user_ids, params.usernames)
        return AddedObject("Participants added", [*added])

    async def remove(self, context: Context, params: MemberParams) -> Said:
        await self._members.remove(context.me.user, params.id, params.user)
        return Said("Participant removed")

    async def set_role(self, context: Context, params: RoleParams) -> Said:
        await self._members.set_role(context.me.user, params.id, params.user, params.role)
        return Said("Role changed")

    async def leave(self, context: Context, params: ConversationParams) -> Said:
        await self._members.leave(context.me.user, params.id)
        return Said("You left the conversation")


def endpoints(conversations: Conversations) -> list[Endpoint]:
    routes = ConversationRoutes(conversations)
    return [*_of_conversations(routes), *_of_changes(routes), *_of_members(routes)]


_look = partial(Endpoint, rate="conversations", features=("history",))
_change = partial(Endpoint, rate="conversations", features=("send", "live_delivery"))


def _of_conversations(routes: ConversationRoutes) -> list[Endpoint]:
    return [
        _change(
            name="conversations.create",
            method="POST",
            path="/v1/conversations",
            params=CreateParams,
            call=routes.create,
            result=ConversationObject,
            errors=(GroupFull,),
            status=201,
            aliases={"name": "title"},
            summary="Begin a conversation. A direct one exists once for each pair: the second time it is answered with 200.",
        ),
        _look(
            name="conversations.list",
            method="GET",
            path="/v1/conversations",
            params=ListParams,
            call=routes.list,
            result=ConversationList,
            summary="My conversations, the most recently active first.",
        ),
        _look(
            name="conversations.get",
            method="GET",
            path="/v1/conversations/:conversation_id",
            params=ConversationParams,
            call=routes.get,
            result=ConversationObject,
            permission="member",
            summary="One conversation.",
        ),
    ]


def _of_changes(routes: ConversationRoutes) -> list[Endpoint]:
    return [
        _change(
            name="conversations.update",
            method="PATCH",
            path="/v1/conversations/:conversation_id",
            params=UpdateParams,
            call=routes.update,
            result=ChangedObject,
            permission="admin",
            aliases={"name": "title"},
            summary="Change title or picture.",
        ),
        _change(
            name="conversations.delete",
            method="DELETE",
            path="/v1/conversations/:conversation_id",
            params=ConversationParams,
            call=routes.delete,
            result=Said,
            permission="owner",
            summary="Delete a group that one has created, for all its members.",
        ),
        _change(
            name="conversations.settings",
            method="PUT",
            path="/v1/conversations/:conversation_id/settings",
            params=SettingsParams,
            call=routes.settings,
            result=ChangedObject,
            permission="admin",
            summary="Change settings; those that are not named stay.",
        ),
        _change(
            name="conversations.leave",
            method="POST",
            path="/v1/conversations/:conversation_id/leave",
            params=ConversationParams,
            call=routes.leave,
            result=Said,
            permission="member",
            summary="Leave. When no admin is left, the longest member becomes one.",
        ),
    ]


def _of_members(routes: ConversationRoutes) -> list[Endpoint]:
    return [
        _look(
            name="conversations.participants",
            method="GET",
            path="/v1/conversations/:conversation_id/participants",
            params=ConversationParams,
            call=routes.participants,
            result=ParticipantList,
            permission="member",
            summary="Who is in it, in the order of joining.",
        ),
        _change(
            name="conversations.add_participants",
            method="POST",
            path="/v1/conversations/:conversation_id/participants",
            params=AddParams,
            call=routes.add,
            result=AddedObject,
            errors=(GroupFull,),
            permission="member",
            aliases={"participant_ids": "user_ids", "participant_usernames": "usernames"},
            summary="Add people: admins, and members where the group lets them invite.",
        ),
        _change(
            name="conversations.remove_participant",
            method="DELETE",
            path="/v1/conversations/:conversation_id/participants/:user_id",
            params=MemberParams,
            call=routes.remove,
            result=Said,
            permission="member",
            summary="Remove somebody, as an admin; or oneself, which is leaving.",
        ),
        _change(
            name="conversations.set_role",
            method="PATCH",
            path="/v1/conversations/:conversation_id/participants/:user_id",
            params=RoleParams,
            call=routes.set_role,
            result=Said,
            errors=(LastAdmin,),
            permission="admin",
            summary="Make a member an admin, or an admin a member. One admin remains.",
        ),
    ]
