"""Conversations and their members in memory. Each change is one synchronous step, rows and announcements together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trio.lowlevel import checkpoint

from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.features.access.model import SEES_NOTHING, Membership, Role, Rules, Standing
from secureconnect.features.conversations.model import Conversation, Departure, NewMember, Participant, Profile, Summary
from secureconnect.features.conversations.store import Change, GroupFull, LastAdmin, Position, UserDirectory
from secureconnect.features.log.model import Head, NewEntry
from secureconnect.ids import ConversationId, UserId


@dataclass(slots=True)
class Room:
    """A conversation with its members by id, and the numbers with which their memberships began, as far as they are known."""

    conversation: Conversation
    members: dict[UserId, NewMember]
    began: dict[UserId, int]

    def in_order(self) -> list[NewMember]:
        """By the time of joining, equals by id."""
        return sorted(self.members.values(), key=lambda member: (member.joined_us, member.user))

    def has_admin_beside(self, user: UserId) -> bool:
        return any(member.role == "admin" for member in self.members.values() if member.user != user)


class MemoryConversations:
    """`conversations.Store` and `AccessStore`. `log` tells where each log ends, `directory` shows the members' faces."""

    def __init__(self, announcements: MemoryAnnouncementStore, *, log: MemoryLogStore, directory: UserDirectory) -> None:
        self._announcements = announcements
        self._log = log
        self._directory = directory
        self._rooms: dict[ConversationId, Room] = {}
        announcements.show_from = self._show_from

    async def create(self, conversation: Conversation, members: Sequence[NewMember], entry: NewEntry) -> bool:
        await checkpoint()
        if conversation.id in self._rooms:
            return False
        founders = {member.user: member for member in members}
        self._rooms[conversation.id] = Room(conversation, founders, dict.fromkeys(founders, 1))
        self._announcements.insert(conversation.id, [(entry, None)])
        return True

    async def change(self, conversation: ConversationId, decide: Callable[[Conversation], Change | None]) -> bool:
        await checkpoint()
        room = self._rooms.get(conversation)
        change = decide(room.conversation) if room else None
        if room is None or change is None:
            return False
        room.conversation = change.conversation
        self._announcements.insert(conversation, [(change.entry, None)])
        return True

    async def delete(self, conversation: ConversationId, farewell: Callable[[UserId], NewEntry]) -> Sequence[UserId]:
        await checkpoint()
        room = self._rooms.pop(conversation, None)
        members = [member.user for member in room.in_order()] if room else []
        self._announcements.insert(conversation, [(farewell(user), None) for user in members])
        return members

    async def summary(self, conversation: ConversationId, user: UserId) -> Summary | None:
        room = self._rooms.get(conversation)
        if room is None or user not in room.members:
            await checkpoint()
            return None
        return await self._summary(room, user)

    async def list_of(self, user: UserId, *, limit: int, offset: int = 0, after: Position | None = None) -> Sequence[Summary]:
        await checkpoint()
        mine = [room for room in self._rooms.values() if user in room.members]
        summaries = sorted([await self._summary(room, user) for room in mine], key=_place, reverse=True)
        if after is not None:
            summaries = [summary for summary in summaries if _place(summary) < (after.active_us, after.conversation)]
        return summaries[offset : offset + limit]

    async def participants(self, conversation: ConversationId) -> Sequence[Participant]:
        await checkpoint()
        room = self._rooms.get(conversation)
        members = room.in_order() if room else []
        faces = await self._directory.by_ids([member.user for member in members])
        return [
            Participant(member.role, member.joined_us, faces.get(member.user, Profile(member.user, "", ""))) for member in members
        ]

    async def join(
        self, conversation: ConversationId, members: Sequence[tuple[NewMember, NewEntry]], *, members_max: int
    ) -> Sequence[UserId]:
        await checkpoint()
        room = self._rooms.get(conversation)
        if room is None:
            return []
        fresh = {member.user: (member, entry) for member, entry in members if member.user not in room.members}
        if len(room.members) + len(fresh) > members_max:
            raise GroupFull(f"A group has at most {members_max} members", details={"field": "user_ids", "limit": members_max})
        room.members.update({user: member for user, (member, _) in fresh.items()})
        self._announcements.insert(conversation, [(entry, member.user) for member, entry in fresh.values()])
        return list(fresh)

    async def leave(
        self, conversation: ConversationId, user: UserId, entry: NewEntry, *, promotion: Callable[[UserId], NewEntry]
    ) -> Departure | None:
        await checkpoint()
        room = self._rooms.get(conversation)
        if room is None or room.members.pop(user, None) is None:
            return None
        room.began.pop(user, None)
        self._announcements.insert(conversation, [(entry, None)])
        if room.has_admin_beside(user) or not room.members:
            return Departure()
        heir = room.in_order()[0]
        room.members[heir.user] = replace(heir, role="admin")
        self._announcements.insert(conversation, [(promotion(heir.user), None)])
        return Departure(heir.user)

    async def set_role(self, conversation: ConversationId, user: UserId, role: Role, entry: NewEntry) -> bool | None:
        await checkpoint()
        room = self._rooms.get(conversation)
        member = room.members.get(user) if room else None
        if room is None or member is None:
            return None
        if member.role == role:
            return False
        if role != "admin" and not room.has_admin_beside(user):
            raise LastAdmin("A group keeps at least one admin", details={"field": "role"})
        room.members[user] = replace(member, role=role)
        self._announcements.insert(conversation, [(entry, None)])
        return True

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        await checkpoint()
        room = self._rooms.get(conversation)
        return _standing(room, user) if room else None

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        await checkpoint()
        room = self._rooms.get(conversation)
        return [member.user for member in room.in_order()] if room else []

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        await checkpoint()
        return [_standing(room, user) for room in self._rooms.values() if user in room.members]

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        await checkpoint()
        mine = [room for room in self._rooms.values() if user in room.members]
        return [other for other in dict.fromkeys(among) if any(other in room.members for room in mine)]

    async def _summary(self, room: Room, user: UserId) -> Summary:
        conversation = room.conversation
        role = room.members[user].role
        head = (await self._log.heads([conversation.id])).get(conversation.id, Head())
        active_us = self._log.last_us(conversation.id) or conversation.created_us
        peer = await self._peer(room, user) if conversation.type == "direct" else None
        return Summary(conversation, role, len(room.members), head.tail, head.messages, active_us, peer)

    async def _peer(self, room: Room, user: UserId) -> Profile | None:
        others = [member.user for member in room.members.values() if member.user != user]
        return next(iter((await self._directory.by_ids(others)).values()), None)

    def _show_from(self, conversation: ConversationId, user: UserId, sequence: int) -> None:
        room = self._rooms.get(conversation)
        member = room.members.get(user) if room else None
        if room is not None and member is not None and user not in room.began:
            room.began[user] = sequence
            room.members[user] = replace(member, visible_from=member.visible_from or sequence)


def _place(summary: Summary) -> tuple[int, str]:
    return summary.active_us, summary.conversation.id


def _standing(room: Room, user: UserId) -> Standing:
    conversation = room.conversation
    settings = conversation.settings
    rules = Rules(
        conversation.id,
        conversation.type,
        conversation.created_by,
        settings.is_e2ee_enabled,
        settings.ai_enabled,
        settings.members_may_invite,
    )
    member = room.members.get(user)
    if member is None:
        return Standing(rules, None)
    floor = SEES_NOTHING if member.visible_from is None else member.visible_from
    return Standing(rules, Membership(conversation.id, user, member.role, member.joined_us, floor, room.began.get(user)))
