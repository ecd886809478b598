"""Announcements that wait for the log: what every AnnouncementStore must do, and from where who joined may read."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import pytest

from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.sql import announcements
from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.features.log.announcer import Announcement, AnnouncementStore
from secureconnect.features.log.model import MEMBER_JOINED, MESSAGE_EDITED, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId

HERE, THERE = ConversationId("here"), ConversationId("there")
INSERT_MEMBER = """
    INSERT INTO participants (conversation_id, user_id, role, joined_us, visible_from) VALUES ($1, $2, 'member', 0, $3)
"""
ADA, BOB, CYD = UserId("ada"), UserId("bob"), UserId("cyd")


def entry(key: str) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b'{"a":1}', ADA, at_us=7)


class Rows(Protocol):
    """The store under test, and the memberships beside it. A member without a number may read nothing yet."""

    @property
    def store(self) -> AnnouncementStore: ...

    async def announce(self, conversation: ConversationId, *entries: tuple[NewEntry, UserId | None]) -> None: ...

    async def join(self, user: UserId, visible_from: int | None) -> None:
        """Begin a membership in HERE, anew if there was one."""
        ...

    async def visible_from(self, user: UserId) -> int | None: ...

    async def joined_sequence(self, user: UserId) -> int | None: ...


class MemoryRows:
    def __init__(self) -> None:
        self.store = MemoryAnnouncementStore()
        self.store.show_from = self._show_from
        self._members: dict[UserId, int | None] = {}
        self._began: dict[UserId, int] = {}

    async def announce(self, conversation: ConversationId, *entries: tuple[NewEntry, UserId | None]) -> None:
        self.store.insert(conversation, entries)

    async def join(self, user: UserId, visible_from: int | None) -> None:
        self._members[user] = visible_from
        self._began.pop(user, None)

    async def visible_from(self, user: UserId) -> int | None:
        return self._members[user]

    async def joined_sequence(self, user: UserId) -> int | None:
        return self._began.get(user)

    def _show_from(self, conversation: ConversationId, user: UserId, sequence: int) -> None:
        if conversation == HERE and user in self._members and user not in self._began:
            self._began[user] = sequence
            self._members[user] = self._members[user] or sequence


class SqlRows:
    def __init__(self, engine: Engine) -> None:
        self.store = announcements.SqlAnnouncementStore(engine)
        self._engine = engine

    async def announce(self, conversation: ConversationId, *entries: tuple[NewEntry, UserId | None]) -> None:
        await self._engine.write(partial(announcements.insert, conversation, entries))

    async def join(self, user: UserId, visible_from: int | None) -> None:
        def join() -> Plan[None]:
            yield "DELETE FROM participants WHERE user_id = $1", (user,)
            text = (
                "INSERT INTO participants (conversation_id, user_id, role, joined_us, visible_from) VALUES ($1, $2, 'm', 0, $3)"
            )
            yield text, (HERE, user, visible_from)

        await self._engine.write(join)

    async def visible_from(self, user: UserId) -> int | None:
        return await self._number("visible_from", user)

    async def joined_sequence(self, user: UserId) -> int | None:
        return await self._number("joined_sequence", user)

    async def _number(self, column: str, user: UserId) -> int | None:
        def select() -> Plan[int | None]:
            rows = yield f"SELECT {column} FROM participants WHERE user_id = $1", (user,)
            value = rows[0][0]
            assert value is None or isinstance(value, int)
            return value

        return await self._engine.read(select)


@pytest.fixture
def rows(engine: Engine | None) -> Rows:
    return MemoryRows() if engine is None else SqlRows(engine)


async def waiting(rows: Rows) -> list[Announcement]:
    return list(await rows.store.pending(100))


async def test_what_was_announced_is_read_as_it_was_given_in_order(rows: Rows) -> None:
    await rows.announce(HERE, (entry("a"), None), (entry("b"), BOB))
    await rows.announce(THERE, (entry("a"), None))
    found = await waiting(rows)
    assert [(a.conversation, a.entry, a.joined) for a in found] == [
        (HERE, entry("a"), None),
        (HERE, entry("b"), BOB),
        (THERE, entry("a"), None),
    ]
    assert [a.id for a in found] == sorted({a.id for a in found})
    assert list(await rows.store.pending_of(HERE)) == found[:2]
    assert list(await rows.store.pending(1)) == found[:1]


async def test_what_is_done_is_gone_and_its_id_is_not_given_again(rows: Rows) -> None:
    await rows.announce(HERE, (entry("a"), None))
    (first,) = await waiting(rows)
    await rows.store.done([first])
    assert await waiting(rows) == []
    await rows.announce(HERE, (entry("b"), None))
    await rows.store.done([first])
    (second,) = await waiting(rows)
    assert second.id > first.id


@pytest.mark.parametrize("count", [0, 1, 64, 200])
async def test_many_are_forgotten_in_one_step_and_the_others_stay(rows: Rows, count: int) -> None:
    await rows.announce(HERE, *((entry(f"a{place}"), None) for place in range(count)))
    await rows.announce(THERE, (entry("b"), None))
    *told, other = list(await rows.store.pending(1_000))
    await rows.store.done(told)
    assert await waiting(rows) == [other]


async def test_who_joined_reads_from_the_number_of_the_entry(rows: Rows) -> None:
    for user in (ADA, BOB, CYD):
        await rows.join(user, None)
    await rows.announce(HERE, (entry("a"), BOB), (entry("b"), None), (entry("c"), CYD))
    bob, other, cyd = await waiting(rows)
    await rows.store.show([(bob, 17), (other, 18), (cyd, 19)])
    assert [await rows.visible_from(user) for user in (ADA, BOB, CYD)] == [None, 17, 19]
    assert await waiting(rows) == [bob, other, cyd], "they are still to be told"
    await rows.store.show([(bob, 17), (other, 18), (cyd, 19)])
    assert await rows.visible_from(BOB) == 17


async def test_a_membership_that_may_read_all_keeps_that_and_learns_where_it_began(rows: Rows) -> None:
    await rows.join(BOB, 1)
    await rows.announce(HERE, (entry("a"), BOB))
    (announcement,) = await waiting(rows)
    assert await rows.joined_sequence(BOB) is None
    await rows.store.show([(announcement, 17)])
    assert (await rows.visible_from(BOB), await rows.joined_sequence(BOB)) == (1, 17)


async def test_a_membership_that_has_its_number_keeps_it(rows: Rows) -> None:
    await rows.join(BOB, None)
    await rows.announce(HERE, (entry("a"), BOB))
    (announcement,) = await waiting(rows)
    await rows.store.show([(announcement, 3)])
    await rows.store.show([(announcement, 17)])
    assert (await rows.visible_from(BOB), await rows.joined_sequence(BOB)) == (3, 3)


async def test_who_was_added_again_waits_for_the_new_entry(rows: Rows) -> None:
    await rows.join(BOB, None)
    await rows.announce(HERE, (entry("first"), BOB))
    await rows.join(BOB, None)
    await rows.announce(HERE, (entry("again"), BOB))
    first, again = await waiting(rows)
    await rows.store.show([(first, 5)])
    assert (await rows.visible_from(BOB), await rows.joined_sequence(BOB)) == (None, None)
    await rows.store.show([(first, 5), (again, 9)])
    assert (await rows.visible_from(BOB), await rows.joined_sequence(BOB)) == (9, 9)


async def test_what_is_told_no_more_does_not_touch_a_later_membership(rows: Rows) -> None:
    await rows.join(BOB, None)
    await rows.announce(HERE, (entry("first"), BOB))
    (first,) = await waiting(rows)
    await rows.store.done([first])
    await rows.join(BOB, None)
    await rows.store.show([(first, 5)])
    assert await rows.visible_from(BOB) is None


async def test_what_is_about_a_message_cannot_be_announced(rows: Rows) -> None:
    with pytest.raises(AssertionError):
        await rows.announce(HERE, (NewEntry("e", MESSAGE_EDITED, b"{}", ADA, 0, MessageId("m")), None))
