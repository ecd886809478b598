"""The cache in front of the question before every deed: never older than its bound, never older than a change we know of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from secureconnect.errors import BackendDown, Forbidden, NotFound
from secureconnect.features.access import service
from secureconnect.features.access.model import Membership, Rules, Standing
from secureconnect.features.access.service import CACHE_S, Access
from secureconnect.ids import ConversationId, UserId

HERE, THERE, NOWHERE = (ConversationId(name) for name in ("here", "there", "nowhere"))
ADA, BOB = UserId("ada"), UserId("bob")


def standing(conversation: ConversationId, membership: Membership | None) -> Standing:
    return Standing(Rules(conversation, "group", ADA, False, False, False), membership)


class Store:
    """Counts the questions; `gate` holds the answers back after they were looked up."""

    def __init__(self) -> None:
        self.members: dict[tuple[ConversationId, UserId], Membership] = {}
        self.asked = 0
        self.gate: trio.Event | None = None
        self.is_away = False

    def admit(self, conversation: ConversationId, user: UserId) -> None:
        self.members[conversation, user] = Membership(conversation, user, "member", 0)

    async def standing(self, conversation: ConversationId, user: UserId) -> Standing | None:
        self.asked += 1
        found = self.members.get((conversation, user))
        if self.gate is not None:
            await self.gate.wait()
        await self._answer()
        return None if conversation == NOWHERE else standing(conversation, found)

    async def member_ids(self, conversation: ConversationId) -> Sequence[UserId]:
        await self._answer()
        return [user for place, user in self.members if place == conversation]

    async def conversations_of(self, user: UserId) -> Sequence[Standing]:
        await self._answer()
        return [standing(place, found) for (place, one), found in self.members.items() if one == user]

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise BackendDown("sql")

    async def co_members(self, user: UserId, among: Sequence[UserId]) -> Sequence[UserId]:
        await trio.lowlevel.checkpoint()
        return []


class Now:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def opened() -> tuple[Access, Store, Now]:
    store, now = Store(), Now()
    store.admit(HERE, ADA)
    return Access(store, now), store, now


async def test_an_answer_serves_for_its_time_and_no_longer() -> None:
    access, store, now = opened()
    await access.member(HERE, ADA)
    now.seconds += CACHE_S - 0.01
    await access.member(HERE, ADA)
    assert store.asked == 1
    now.seconds += 0.01
    del store.members[HERE, ADA]
    with pytest.raises(Forbidden):
        await access.member(HERE, ADA)


async def test_what_is_forgotten_is_asked_again_and_nothing_else() -> None:
    access, store, _ = opened()
    store.admit(THERE, ADA)
    for conversation in (HERE, THERE):
        await access.member(conversation, ADA)
        with pytest.raises(Forbidden):
            await access.member(conversation, BOB)
    store.admit(HERE, BOB)
    access.forget(HERE)
    access.forget(HERE)
    await access.member(HERE, BOB)
    assert store.asked == 5
    await access.member(THERE, ADA)
    assert store.asked == 5


async def test_an_answer_from_before_a_change_is_not_kept() -> None:
    access, store, _ = opened()
    store.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.member, HERE, ADA)
        await wait_all_tasks_blocked()
        del store.members[HERE, ADA]
        access.forget(HERE)
        store.gate.set()
    with pytest.raises(Forbidden):
        await access.member(HERE, ADA)


async def test_the_cache_is_bounded_and_the_conversation_asked_for_longest_ago_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CACHE_ENTRIES_MAX", 3)
    access, store, _ = opened()
    for conversation, user in ((HERE, ADA), (HERE, BOB), (THERE, ADA), (THERE, BOB)):
        await access.standing(conversation, user)
    assert store.asked == 4
    await access.standing(THERE, ADA)
    await access.standing(THERE, BOB)
    assert store.asked == 4
    await access.standing(HERE, ADA)
    assert store.asked == 5
    access.forget(HERE)
    access.forget(THERE)
    await access.standing(HERE, ADA)
    assert store.asked == 6


async def test_what_does_not_exist_is_not_found_and_not_kept() -> None:
    access, store, _ = opened()
    for _ in range(2):
        with pytest.raises(NotFound):
            await access.member(NOWHERE, ADA)
    assert store.asked == 2


async def test_only_admins_are_admins() -> None:
    access, store, _ = opened()
    with pytest.raises(Forbidden):
        await access.admin(HERE, ADA)
    store.members[HERE, ADA] = Membership(HERE, ADA, "admin", 0)
    access.forget(HERE)
    assert (await access.admin(HERE, ADA)).membership == store.members[HERE, ADA]
    assert await access.member_ids(HERE) == [ADA]
