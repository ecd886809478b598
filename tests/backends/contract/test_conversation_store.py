"""Conversations, members, standing, the users' directory: what every implementation of these protocols must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
import trio

from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.auth import MemoryRevocations, MemorySessions, MemoryUsers
from secureconnect.backends.memory.conversations import MemoryConversations
from secureconnect.backends.memory.directory import MemoryDirectory
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.backends.sql.announcements import SqlAnnouncementStore
from secureconnect.backends.sql.auth import SqlUsers
from secureconnect.backends.sql.conversations import SqlConversations
from secureconnect.backends.sql.directory import SqlDirectory
from secureconnect.backends.sql.engine import Engine
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.features.access.model import SEES_NOTHING, Membership, Role, Rules
from secureconnect.features.access.store import AccessStore
from secureconnect.features.auth.model import User
from secureconnect.features.auth.store import UserStore
from secureconnect.features.conversations.model import Conversation, Departure, NewMember, Profile, Settings, Summary
from secureconnect.features.conversations.store import Change, GroupFull, LastAdmin, Position, Store, UserDirectory
from secureconnect.features.log.announcer import Announcement, AnnouncementStore, Announcer
from secureconnect.features.log.model import MEMBER_JOINED, MESSAGE_CREATED, NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.features.log.store import LogStore
from secureconnect.ids import ConversationId, MessageId, UserId

ADA, BOB, CYD, DAN = (UserId(name) for name in ("ada", "bob", "cyd", "dan"))
HERE, THERE, NOWHERE = (ConversationId(name) for name in ("here", "there", "nowhere"))
BEGAN_US = 1_768_000_000_000_000
SETTINGS = Settings(False, True, True, 7, True, "all")
GROUP = Conversation(HERE, "group", "Lunch 🍜", "https://x.org/a.png", ADA, BEGAN_US, BEGAN_US + 1, SETTINGS)


class Both(Store, AccessStore, Protocol):
    """One class implements the two."""


@dataclass
class House:
    store: Both
    directory: UserDirectory
    users: UserStore
    log: LogStore
    announcements: AnnouncementStore

    async def announced(self, conversation: ConversationId = HERE) -> list[tuple[str, UserId | None]]:
        """What waits to be told: keys, and whom it lets read."""
        return [(row.entry.key, row.joined) for row in await self.announcements.pending_of(conversation)]

    async def flush(self, conversation: ConversationId = HERE) -> None:
        await Announcer(self.announcements, self._append, told=self._told).flush(conversation)

    async def _append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Receipt]:
        appended = await self.log.append(conversation, entries)
        return [Receipt("stored", one.entry, one.duplicate) for one in appended]

    async def _told(self, announcements: Sequence[Announcement]) -> None:
        """Nobody listens here."""

    async def founded(self, *members: NewMember, conversation: Conversation = GROUP) -> None:
        assert await self.store.create(conversation, members or (member(ADA, "admin"), member(BOB)), entry("created"))
        await self.flush(conversation.id)

    async def standing_of(self, user: UserId) -> Membership | None:
        standing = await self.store.standing(HERE, user)
        assert standing is not None
        return standing.membership

    async def roles(self) -> list[tuple[UserId, Role]]:
        return [(one.profile.user, one.role) for one in await self.store.participants(HERE)]


@pytest.fixture
async def house(engine: Engine | None) -> House:
    users: UserStore
    if engine is None:
        log, announcements = MemoryLogStore(), MemoryAnnouncementStore()
        users = MemoryUsers(MemorySessions(MemoryRevocations()))
        directory = MemoryDirectory(users)
        store = MemoryConversations(announcements, log=log, directory=directory)
        made = House(store, directory, users, log, announcements)
    else:
        users = SqlUsers(engine)
        made = House(SqlConversations(engine), SqlDirectory(engine), users, SqlLogStore(engine), SqlAnnouncementStore(engine))
    for name in (ADA, BOB, CYD, DAN):
        await users.add(person(name), "hash")
    return made


def person(name: str, status: str = "online") -> User:
    return User(
        UserId(name), f"{name}@x.org", name.upper(), f"Dr. {name}", 0, 0, avatar_url=f"https://x.org/{name}", status=status
    )


def member(user: UserId, role: Role = "member", *, place: int = 0, visible_from: int | None = 1) -> NewMember:
    return NewMember(user, role, BEGAN_US + place, visible_from)


def entry(key: str, at_us: int = BEGAN_US) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b'{"key":"%b"}' % key.encode(), ADA, at_us)


def joins(*members: NewMember) -> Sequence[tuple[NewMember, NewEntry]]:
    return [(one, entry(f"join {one.user}")) for one in members]


def promotion(heir: UserId) -> NewEntry:
    return entry(f"promote {heir}")


async def test_a_conversation_reads_back_as_created(house: House) -> None:
    await house.founded(member(ADA, "admin"), member(BOB, place=1), member(CYD, place=2))
    summary = await house.store.summary(HERE, BOB)
    assert summary is not None
    assert summary.conversation == GROUP
    assert (summary.role, summary.participants, summary.peer) == ("member", 3, None)
    assert (summary.tail, summary.messages, summary.active_us) == (1, 0, BEGAN_US)
    assert await house.store.summary(HERE, DAN) is None
    assert await house.store.summary(NOWHERE, BOB) is None


async def test_bare_conversations_have_no_title_and_no_picture(house: House) -> None:
    bare = replace(GROUP, title=None, avatar_url=None, settings=Settings())
    await house.founded(conversation=bare)
    summary = await house.store.summary(HERE, ADA)
    assert summary is not None
    assert summary.conversation == bare


async def test_an_id_that_is_taken_changes_and_announces_nothing(house: House) -> None:
    assert await house.store.create(GROUP, [member(ADA, "admin")], entry("created"))
    again = replace(GROUP, title="Other", created_by=BOB)
    assert not await house.store.create(again, [member(BOB, "admin")], entry("created again"))
    assert await house.announced() == [("created", None)]
    assert await house.roles() == [(ADA, "admin")]
    summary = await house.store.summary(HERE, ADA)
    assert summary is not None
    assert summary.conversation == GROUP


async def test_of_two_creations_at_once_one_wins(house: House) -> None:
    fresh = []

    async def create(user: UserId) -> None:
        fresh.append(await house.store.create(GROUP, [member(user, "admin")], entry("created")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, ADA)
        nursery.start_soon(create, BOB)
    assert sorted(fresh) == [False, True]
    assert len(await house.store.member_ids(HERE)) == 1


async def test_a_change_and_its_announcement_are_one_step(house: House) -> None:
    await house.founded()

    def decide(before: Conversation) -> Change:
        assert before == GROUP
        return Change(replace(before, title="Dinner", settings=Settings()), entry("changed"))

    assert await house.store.change(HERE, decide)
    assert await house.announced() == [("changed", None)]
    summary = await house.store.summary(HERE, ADA)
    assert summary is not None
    assert summary.conversation == replace(GROUP, title="Dinner", settings=Settings())


async def test_a_decision_may_leave_all_as_it_is_or_refuse(house: House) -> None:
    await house.founded()
    assert not await house.store.change(HERE, lambda before: None)
    assert not await house.store.change(NOWHERE, lambda before: Change(before, entry("changed")))

    def refuse(before: Conversation) -> Change:
        raise LastAdmin("no")

    with pytest.raises(LastAdmin, match="no"):
        await house.store.change(HERE, refuse)
    assert await house.announced() == []


async def test_who_joins_is_announced_and_who_was_there_is_not(house: House) -> None:
    await house.founded()
    added = await house.store.join(HERE, joins(member(CYD, place=5), member(BOB), member(DAN, place=4)), members_max=4)
    assert added == [CYD, DAN]
    assert await house.announced() == [("join cyd", CYD), ("join dan", DAN)]
    assert await house.roles() == [(ADA, "admin"), (BOB, "member"), (DAN, "member"), (CYD, "member")]


async def test_a_group_that_would_be_too_full_takes_nobody(house: House) -> None:
    await house.founded()
    with pytest.raises(GroupFull):
        await house.store.join(HERE, joins(member(CYD), member(DAN)), members_max=3)
    assert await house.announced() == []
    assert await house.store.member_ids(HERE) == [ADA, BOB]


async def test_a_group_fills_to_the_last_place_and_no_further_whoever_comes_at_once(house: House) -> None:
    await house.founded()
    outcomes = []

    async def join(user: UserId) -> None:
        try:
            outcomes.append(bool(await house.store.join(HERE, joins(member(user)), members_max=3)))
        except GroupFull:
            outcomes.append(False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join, CYD)
        nursery.start_soon(join, DAN)
    assert sorted(outcomes) == [False, True]
    assert len(await house.store.member_ids(HERE)) == 3


async def test_hundreds_join_in_one_step(house: House) -> None:
    await house.founded()
    crowd = [member(UserId(f"user {n:03}"), place=n, visible_from=None) for n in range(300)]
    added = await house.store.join(HERE, joins(*crowd), members_max=1000)
    assert list(added) == [one.user for one in crowd]
    assert [joined for _, joined in await house.announced()] == [one.user for one in crowd]


async def test_a_newcomer_reads_nothing_until_the_join_has_its_number(house: House) -> None:
    await house.founded()
    await house.store.join(HERE, joins(member(CYD, visible_from=None)), members_max=9)
    assert await house.announced() == [("join cyd", CYD)]
    standing = await house.standing_of(CYD)
    assert standing == Membership(HERE, CYD, "member", BEGAN_US, SEES_NOTHING)
    await house.flush()
    standing = await house.standing_of(CYD)
    assert standing is not None
    assert standing.visible_from == 2


async def test_a_founder_s_membership_began_with_the_log(house: House) -> None:
    await house.founded()
    (created,) = (await house.log.read(HERE, 0, 10)).entries
    assert (created.sequence, created.key) == (1, "created")
    assert await house.standing_of(BOB) == Membership(HERE, BOB, "member", BEGAN_US, 1, joined_sequence=1)


async def test_where_a_membership_began_is_known_also_when_all_may_be_read(house: House) -> None:
    await house.founded()
    await house.store.join(HERE, joins(member(CYD, visible_from=1), member(DAN, visible_from=None)), members_max=9)
    assert await house.standing_of(CYD) == Membership(HERE, CYD, "member", BEGAN_US, 1, joined_sequence=None)
    await house.flush()
    assert await house.standing_of(CYD) == Membership(HERE, CYD, "member", BEGAN_US, 1, joined_sequence=2)
    assert await house.standing_of(DAN) == Membership(HERE, DAN, "member", BEGAN_US, 3, joined_sequence=3)
    (found,) = await house.store.conversations_of(CYD)
    assert found.membership == await house.standing_of(CYD)


async def test_a_role_does_not_change_where_a_membership_began(house: House) -> None:
    await house.founded()
    await house.store.join(HERE, joins(member(CYD, visible_from=None)), members_max=9)
    await house.flush()
    await house.store.set_role(HERE, CYD, "admin", entry("role"))
    assert await house.standing_of(CYD) == Membership(HERE, CYD, "admin", BEGAN_US, 2, joined_sequence=2)


async def test_who_left_and_came_again_waits_for_the_new_join(house: House) -> None:
    await house.founded()
    await house.store.join(HERE, [(member(CYD, visible_from=None), entry("first"))], members_max=9)
    await house.store.leave(HERE, CYD, entry("left"), promotion=promotion)
    await house.store.join(HERE, [(member(CYD, visible_from=None), entry("second"))], members_max=9)
    await house.flush()
    standing = await house.standing_of(CYD)
    assert standing is not None
    assert standing.visible_from == 4, "1 created, 2 first, 3 left, 4 second"
    assert standing.joined_sequence == 4


async def test_who_left_before_the_join_was_told_is_not_back(house: House) -> None:
    await house.founded()
    await house.store.join(HERE, joins(member(CYD, visible_from=None)), members_max=9)
    await house.store.leave(HERE, CYD, entry("left"), promotion=promotion)
    await house.flush()
    assert await house.standing_of(CYD) is None


async def test_leaving_promotes_the_longest_member_only_when_no_admin_is_left(house: House) -> None:
    await house.founded(member(CYD, place=3), member(ADA, "admin"), member(BOB, "admin", place=1), member(DAN, place=2))
    assert await house.store.leave(HERE, BOB, entry("bob left"), promotion=promotion) == Departure()
    assert await house.store.leave(HERE, ADA, entry("ada left"), promotion=promotion) == Departure(DAN)
    assert await house.announced() == [("bob left", None), ("ada left", None), ("promote dan", None)]
    assert await house.roles() == [(DAN, "admin"), (CYD, "member")]


async def test_the_last_one_may_leave_and_a_stranger_cannot(house: House) -> None:
    await house.founded(member(ADA, "admin"))
    assert await house.store.leave(HERE, BOB, entry("left"), promotion=promotion) is None
    assert await house.store.leave(NOWHERE, ADA, entry("left"), promotion=promotion) is None
    assert await house.store.leave(HERE, ADA, entry("left"), promotion=promotion) == Departure()
    assert await house.store.leave(HERE, ADA, entry("again"), promotion=promotion) is None
    assert await house.announced() == [("left", None)]
    standing = await house.store.standing(HERE, ADA)
    assert standing is not None, "the conversation stays"
    assert standing.membership is None


async def test_roles_change_once_and_an_admin_remains(house: House) -> None:
    await house.founded()
    with pytest.raises(LastAdmin):
        await house.store.set_role(HERE, ADA, "member", entry("ada down"))
    assert await house.store.set_role(HERE, BOB, "admin", entry("bob up")) is True
    assert await house.store.set_role(HERE, BOB, "admin", entry("bob up again")) is False
    assert await house.store.set_role(HERE, ADA, "member", entry("ada down")) is True
    assert await house.store.set_role(HERE, CYD, "admin", entry("cyd up")) is None
    assert await house.store.set_role(NOWHERE, ADA, "admin", entry("nobody up")) is None
    assert await house.announced() == [("bob up", None), ("ada down", None)]
    assert await house.roles() == [(ADA, "member"), (BOB, "admin")]


async def test_two_admins_stepping_down_at_once_leave_one(house: House) -> None:
    await house.founded(member(ADA, "admin"), member(BOB, "admin"))
    outcomes = []

    async def step_down(user: UserId) -> None:
        try:
            outcomes.append(await house.store.set_role(HERE, user, "member", entry(f"{user} down")))
        except LastAdmin:
            outcomes.append(False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(step_down, ADA)
        nursery.start_soon(step_down, BOB)
    assert sorted(map(bool, outcomes)) == [False, True]


async def test_participants_have_faces_without_addresses(house: House) -> None:
    await house.founded(member(BOB, place=1), member(ADA, "admin"), member(UserId("ghost"), place=2))
    ada, bob, ghost = await house.store.participants(HERE)
    assert (ada.role, ada.joined_us) == ("admin", BEGAN_US)
    assert bob.profile == Profile(BOB, "BOB", "Dr. bob", "https://x.org/bob", "online")
    assert ghost.profile == Profile(UserId("ghost"), "", "")
    assert await house.store.participants(NOWHERE) == []


async def test_standing_tells_strangers_from_what_does_not_exist(house: House) -> None:
    await house.founded(member(ADA, "admin"), member(BOB, place=7))
    standing = await house.store.standing(HERE, BOB)
    assert standing is not None
    assert standing.rules == Rules(HERE, "group", ADA, False, True, True)
    assert standing.membership == Membership(HERE, BOB, "member", BEGAN_US + 7, joined_sequence=1)
    assert await house.standing_of(DAN) is None
    assert await house.store.standing(NOWHERE, BOB) is None
    assert await house.store.member_ids(HERE) == [ADA, BOB]
    assert await house.store.member_ids(NOWHERE) == []


async def test_all_standings_of_a_user(house: House) -> None:
    await house.founded()
    await house.founded(member(BOB), conversation=replace(GROUP, id=THERE, type="direct"))
    found = {one.rules.conversation: one for one in await house.store.conversations_of(BOB)}
    assert {key: one.rules.type for key, one in found.items()} == {HERE: "group", THERE: "direct"}
    assert all(one.membership is not None and one.membership.user == BOB for one in found.values())
    assert [one.rules.conversation for one in await house.store.conversations_of(ADA)] == [HERE]
    assert await house.store.conversations_of(DAN) == []


async def test_co_members_are_those_who_share_a_conversation(house: House) -> None:
    await house.founded(member(ADA), member(BOB))
    await house.founded(member(ADA), member(BOB), member(CYD), conversation=replace(GROUP, id=THERE))
    assert sorted(await house.store.co_members(ADA, [DAN, CYD, BOB, BOB])) == [BOB, CYD]
    assert await house.store.co_members(ADA, []) == []
    assert await house.store.co_members(DAN, [ADA]) == []


async def test_a_direct_conversation_shows_each_the_other(house: House) -> None:
    await house.founded(conversation=replace(GROUP, type="direct"))
    for me, other in ((ADA, BOB), (BOB, ADA)):
        (summary,) = await house.store.list_of(me, limit=5)
        assert summary.peer is not None
        assert (summary.peer.user, summary.participants) == (other, 2)


async def test_lists_are_by_activity_then_id_and_can_be_cut_anywhere(house: House) -> None:
    ids = [ConversationId(f"c{n}") for n in range(5)]
    for n, key in enumerate(ids):
        at_us = BEGAN_US + min(n, 3)  # the last two are equally old
        made = replace(GROUP, id=key, created_us=at_us)
        assert await house.store.create(made, [member(ADA, "admin")], entry("created", at_us))
        if n != 2:  # this one's log is empty as yet: its creation counts
            await house.flush(key)
    message = NewEntry("m1", MESSAGE_CREATED, b"{}", ADA, BEGAN_US + 9, message=MessageId("m1"))
    await house.log.append(ids[1], [message])
    wanted = [ids[1], ids[4], ids[3], ids[2], ids[0]]

    def named(found: Sequence[Summary]) -> list[ConversationId]:
        return [one.conversation.id for one in found]

    everything = await house.store.list_of(ADA, limit=9)
    assert named(everything) == wanted
    assert (everything[0].tail, everything[0].messages, everything[0].active_us) == (2, 1, BEGAN_US + 9)
    assert (everything[3].tail, everything[3].active_us) == (0, BEGAN_US + 2)
    for cut, one in enumerate(everything):
        after = Position(one.active_us, one.conversation.id)
        assert named(await house.store.list_of(ADA, limit=2, after=after)) == wanted[cut + 1 : cut + 3]
        assert named(await house.store.list_of(ADA, limit=2, offset=cut)) == wanted[cut : cut + 2]
    assert await house.store.list_of(BOB, limit=9) == []


async def test_the_directory_shows_who_exists_and_no_more(house: House) -> None:
    await house.users.add(person("eve", status="banned"), "hash")
    await house.users.add(person("fay", status="deleted"), "hash")
    wanted = [UserId(name) for name in ("ada", "eve", "fay", "zoe", "ada")]
    ada = Profile(ADA, "ADA", "Dr. ada", "https://x.org/ada", "online")
    eve = Profile(UserId("eve"), "EVE", "Dr. eve", "https://x.org/eve", "offline")
    assert await house.directory.by_ids(wanted) == {ADA: ada, "eve": eve}
    assert await house.directory.by_usernames(["ADA", "ada", "EVE", "FAY"]) == {"ADA": ada, "EVE": eve}
    assert await house.directory.by_ids([]) == {}
    assert await house.directory.by_usernames([]) == {}
    assert "@" not in repr(ada)


async def test_what_is_deleted_is_gone_with_its_members_who_are_announced(house: House) -> None:
    await house.founded(member(BOB, place=1), member(ADA, "admin"), member(CYD, visible_from=None, place=2))
    await house.founded(conversation=replace(GROUP, id=THERE))
    await house.store.join(HERE, joins(member(DAN, place=3, visible_from=None)), members_max=9)
    assert await house.store.delete(HERE, lambda user: entry(f"bye {user}")) == [ADA, BOB, CYD, DAN]
    assert await house.announced() == [("join dan", DAN), *((f"bye {user}", None) for user in (ADA, BOB, CYD, DAN))]
    assert await house.store.standing(HERE, ADA) is None
    assert await house.store.member_ids(HERE) == []
    assert await house.store.summary(HERE, ADA) is None
    assert [one.conversation.id for one in await house.store.list_of(ADA, limit=9)] == [THERE]
    await house.flush()
    assert await house.announced() == []
    assert (await house.log.read(HERE, 0, 0)).head.tail == 6, "the log stays"
    assert await house.store.delete(HERE, entry) == []
    assert await house.announced() == []
    assert await house.store.join(HERE, joins(member(DAN)), members_max=9) == [], "not even who was asked for meanwhile"
    assert (await house.store.member_ids(HERE), await house.announced()) == ([], [])
