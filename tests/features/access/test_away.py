"""The store is away: who was there a moment ago goes on, everybody else is told to come back, and afterwards the truth holds."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from tests.features.access.test_access import ADA, BOB, HERE, NOWHERE, THERE, opened
from trio.testing import wait_all_tasks_blocked

from secureconnect.errors import BackendDown, Forbidden, NotFound, Unavailable
from secureconnect.features.access import service
from secureconnect.features.access.model import Membership
from secureconnect.features.access.service import AWAY_S, Access
from secureconnect.ids import ConversationId, UserId


async def rechecked(access: Access) -> list[tuple[ConversationId, UserId]]:
    found: list[tuple[ConversationId, UserId]] = []
    await access.recheck(lambda conversation, user: found.append((conversation, user)))
    return found


async def test_who_was_asked_about_in_the_last_five_minutes_goes_on_and_nobody_else() -> None:
    access, store, now = opened()
    await access.member(HERE, ADA)
    with pytest.raises(Forbidden):
        await access.member(HERE, BOB)
    store.is_away = True
    now.seconds += AWAY_S - 0.01
    await access.member(HERE, ADA)
    with pytest.raises(Forbidden):
        await access.member(HERE, BOB)
    with pytest.raises(BackendDown):
        await access.member(THERE, ADA)
    now.seconds += 0.01
    with pytest.raises(BackendDown):
        await access.member(HERE, ADA)


async def test_an_answer_taken_for_granted_lives_no_longer_by_being_asked_for() -> None:
    access, store, now = opened()
    await access.member(HERE, ADA)
    store.is_away = True
    for _ in range(29):
        now.seconds += 10
        await access.member(HERE, ADA)
    now.seconds += 10
    with pytest.raises(BackendDown):
        await access.member(HERE, ADA)


async def test_the_store_is_believed_as_soon_as_it_answers_again() -> None:
    access, store, now = opened()
    await access.member(HERE, ADA)
    store.is_away = True
    now.seconds += 10
    await access.member(HERE, ADA)
    store.is_away = False
    del store.members[HERE, ADA]
    with pytest.raises(Forbidden):
        await access.member(HERE, ADA)
    store.is_away = True
    with pytest.raises(Forbidden):
        await access.member(HERE, ADA)


async def test_what_changed_or_is_gone_is_not_taken_for_granted() -> None:
    access, store, now = opened()
    store.admit(THERE, ADA)
    store.admit(NOWHERE, ADA)
    access._keep(NOWHERE, ADA, (now.seconds - 10, await access.standing(THERE, ADA)))  # it existed a moment ago
    await access.member(HERE, ADA)
    with pytest.raises(NotFound):
        await access.member(NOWHERE, ADA)
    store.is_away = True
    access.forget(HERE)
    for conversation in (HERE, NOWHERE):
        with pytest.raises(BackendDown):
            await access.member(conversation, ADA)
    await access.member(THERE, ADA)


async def test_a_change_that_is_told_during_the_question_counts() -> None:
    access, store, now = opened()
    await access.member(HERE, ADA)
    now.seconds += 10
    store.is_away, store.gate = True, trio.Event()
    outcomes: list[str] = []

    async def ask() -> None:
        with suppress(Unavailable):
            await access.member(HERE, ADA)
            outcomes.append("let in")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        access.forget(HERE)
        store.gate.set()
    assert outcomes == []


async def test_an_admin_is_one_only_by_the_stores_word() -> None:
    """Else a demoted one could change a conversation when one question is refused and the next write is not."""
    access, store, now = opened()
    store.members[HERE, ADA] = Membership(HERE, ADA, "admin", 0)
    await access.admin(HERE, ADA)
    now.seconds += 10
    store.is_away = True
    await access.member(HERE, ADA)
    with pytest.raises(BackendDown):
        await access.admin(HERE, ADA)


async def test_a_list_of_conversations_serves_as_long_and_says_what_it_does_not_know() -> None:
    access, store, now = opened()
    store.admit(THERE, ADA)
    fresh = await access.conversations_of(ADA)
    assert list(fresh) == [HERE, THERE]
    store.is_away = True
    now.seconds += AWAY_S - 0.01
    assert await access.conversations_of(ADA) == fresh
    access.forget(THERE)
    assert await access.conversations_of(ADA) == {**fresh, THERE: None}
    with pytest.raises(BackendDown):
        await access.conversations_of(BOB)
    now.seconds += 0.01
    with pytest.raises(BackendDown):
        await access.conversations_of(ADA)


async def test_on_return_those_who_were_removed_meanwhile_are_named_once() -> None:
    access, store, now = opened()
    store.admit(HERE, BOB)
    store.admit(THERE, ADA)
    for conversation, user in ((HERE, ADA), (HERE, BOB), (THERE, ADA)):
        await access.member(conversation, user)
    store.is_away = True
    now.seconds += 10
    assert not access.is_doubtful
    for conversation, user in ((HERE, ADA), (HERE, BOB), (THERE, ADA), (HERE, BOB)):
        await access.member(conversation, user)
    with pytest.raises(BackendDown):
        await rechecked(access)
    assert access.is_doubtful
    store.is_away = False
    del store.members[HERE, BOB], store.members[THERE, ADA]
    assert await rechecked(access) == [(HERE, BOB), (THERE, ADA)]
    assert not access.is_doubtful
    assert await rechecked(access) == []
    with pytest.raises(Forbidden):
        await access.member(HERE, BOB)


async def test_no_more_is_taken_for_granted_than_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DOUBTFUL_MAX", 1)
    access, store, now = opened()
    store.admit(HERE, BOB)
    for user in (ADA, BOB):
        await access.member(HERE, user)
    store.is_away = True
    now.seconds += 10
    for _ in range(2):
        await access.member(HERE, ADA)
        with pytest.raises(BackendDown):
            await access.member(HERE, BOB)
    store.is_away = False
    await rechecked(access)
    store.is_away = True
    with pytest.raises(BackendDown):  # its answer was forgotten with the conversation's
        await access.member(HERE, BOB)


async def test_lists_are_bounded_and_the_one_asked_for_longest_ago_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LISTS_MAX", 1)
    access, store, _ = opened()
    for user in (ADA, BOB):
        await access.conversations_of(user)
    store.is_away = True
    assert await access.conversations_of(BOB) == {}
    with pytest.raises(BackendDown):
        await access.conversations_of(ADA)
