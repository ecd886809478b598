"""Presence of users over several nodes, on leases in memory: what is told, to whom, when, and what is answered."""

from __future__ import annotations

import pytest
import trio
from tests.features.presence.kit import ANN, BOB, EVE, House, Time, Told, Unsteady
from trio.testing import wait_all_tasks_blocked

from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.errors import BackendDown
from secureconnect.features.presence import service
from secureconnect.features.presence.leasing import LINGER_S
from secureconnect.features.presence.service import DEBOUNCE_S, EXPIRE_S, LISTENERS_MAX, REBUILD_S, VISIT_S, Presence
from secureconnect.features.presence.store import LEASE_S, RENEW_S, Sighting
from secureconnect.ids import UserId
from secureconnect.ports import rfc3339

SOON_S = DEBOUNCE_S + 1.0
"""A change that was made is told by then."""
GONE_S = LINGER_S + SOON_S
WHOLE_S = 2 * REBUILD_S + 1.0


@pytest.fixture
def house() -> House:
    time = Time()
    return House(Unsteady(MemoryLeaseStore(time)), time)


@pytest.fixture
def store(house: House) -> Unsteady:
    assert isinstance(house.store, Unsteady)
    return house.store


@pytest.fixture
def n1(house: House) -> Presence:
    return house.start("n1")


@pytest.fixture
def n2(house: House) -> Presence:
    return house.start("n2")


async def status(node: Presence, user: UserId, *, me: UserId = BOB) -> bool:
    (one,), _ = await node.read(me, [user])
    return one.is_there


# -- ordinary days


async def test_the_first_socket_is_told_in_each_conversation_of_hers_after_the_debounce(house: House, n1: Presence) -> None:
    house.members.conversations = {"lunch": [ANN, BOB], "work": [ANN], "theirs": [BOB]}
    n1.arrived(ANN)
    assert await status(n1, ANN), "at once, on this node"
    await house.wait(DEBOUNCE_S)
    assert house.heard() == []
    await house.wait(1)
    assert house.told == [Told("n1", f"conversation:{name}", ANN, "online", {}) for name in ("lunch", "work")]
    n1.arrived(ANN)
    await house.wait(GONE_S)
    assert len(house.told) == 2
    assert n1.told_total == 1


async def test_a_reconnect_in_time_is_no_flicker(house: House, n1: Presence) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    assert house.heard() == [(ANN, "online")]
    for _ in range(5):
        n1.left(ANN)
        await house.wait(LINGER_S - 0.5)
        assert await status(n1, ANN)
        n1.arrived(ANN)
    await house.wait(GONE_S)
    assert house.heard() == []


async def test_who_goes_is_told_once_with_the_time(house: House, n1: Presence, n2: Presence) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    house.told.clear()
    n1.left(ANN)
    await house.wait(LINGER_S)
    went_us = house.time.now_us()
    await house.wait(SOON_S)
    assert house.told == [Told("n1", "conversation:lunch", ANN, "offline", {"last_seen": rfc3339(went_us)})]
    found, is_partial = await n2.read(BOB, [ANN, BOB])
    assert (found, is_partial) == ([Sighting(ANN, False, went_us), Sighting(BOB, False)], False)


async def test_on_two_nodes_she_stays_until_the_last_socket_of_both(house: House, n1: Presence, n2: Presence) -> None:
    n1.arrived(ANN)
    n2.arrived(ANN)
    await house.wait(SOON_S)
    assert house.heard() == [(ANN, "online")]
    n1.left(ANN)
    await house.wait(GONE_S)
    assert house.heard() == []
    assert await status(n1, ANN)
    n2.left(ANN)
    await house.wait(GONE_S)
    assert house.heard() == [(ANN, "offline")]
    assert not await status(n1, ANN)


async def test_who_comes_back_on_another_node_before_it_was_told_has_not_gone(house: House, n1: Presence, n2: Presence) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    house.told.clear()
    n1.left(ANN)
    await house.wait(LINGER_S)
    assert not await status(n2, ANN)
    n2.arrived(ANN)
    await house.wait(GONE_S)
    assert (ANN, "offline") not in house.heard()
    assert await status(n1, ANN)


async def test_who_leaves_both_at_once_is_told_to_have_gone_once(house: House, n1: Presence, n2: Presence) -> None:
    for node in (n1, n2):
        node.arrived(ANN)
    await house.wait(SOON_S)
    house.told.clear()
    for node in (n1, n2):
        node.left(ANN)
    await house.wait(GONE_S)
    assert house.heard() == [(ANN, "offline")]


async def test_news_that_comes_while_older_is_told_is_told_after_it(house: House, n1: Presence) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    n1.left(ANN)
    await house.wait(LINGER_S)
    house.time.seconds += DEBOUNCE_S
    house.told.clear()
    house.members.gate = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(n1.tell)
        await wait_all_tasks_blocked()
        await n1.visit(ANN, is_there=True)
        house.members.gate.set()
    await house.wait(SOON_S)
    assert house.heard() == [(ANN, "offline"), (ANN, "online")]


async def test_a_dead_node_is_announced_by_one_of_the_others(house: House, n1: Presence, n2: Presence) -> None:
    house.start("n3")
    n1.arrived(ANN)
    n1.arrived(BOB)
    n2.arrived(BOB)
    await house.wait(SOON_S)
    house.told.clear()
    del house.nodes["n1"]
    await house.wait(LEASE_S - SOON_S - 2)
    assert house.heard() == []
    await house.wait(EXPIRE_S + SOON_S + 2)
    assert house.heard() == [(ANN, "offline")]
    assert await status(n2, BOB, me=ANN)


async def test_an_ended_node_leaves_its_users_a_moment_to_come_elsewhere(house: House, n1: Presence, n2: Presence) -> None:
    n1.arrived(ANN)
    n1.arrived(BOB)
    await house.wait(SOON_S)
    house.told.clear()
    await n1.farewell()
    del house.nodes["n1"]
    n2.arrived(ANN)
    await house.wait(LINGER_S + EXPIRE_S + SOON_S)
    assert house.heard() == [(BOB, "offline")]


async def test_idle_users_cost_a_renewal_each_thirty_seconds_and_nothing_else(
    house: House, n1: Presence, store: Unsteady
) -> None:
    users = [UserId(f"u{n}") for n in range(1000)]
    for user in users:
        n1.arrived(user)
    await house.wait(60)
    store.calls.clear()
    await house.wait(RENEW_S)
    assert store.calls.count("hold") <= RENEW_S / 0.5
    assert len(store.calls) - store.calls.count("hold") <= RENEW_S / EXPIRE_S + 1
    house.told.clear()
    await house.wait(2 * LEASE_S)
    assert house.told == []
    assert await status(n1, users[0], me=users[0])


# -- who may know


async def test_of_strangers_one_learns_nothing(house: House, n1: Presence) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    assert await status(n1, ANN)
    assert not await status(n1, ANN, me=EVE)
    assert await status(n1, ANN, me=ANN)
    n1.left(ANN)
    await house.wait(GONE_S)
    assert (await n1.read(EVE, [ANN, UserId("nobody")]))[0] == [Sighting(ANN, False), Sighting(UserId("nobody"), False)]
    house.members.is_down = True
    with pytest.raises(BackendDown):
        await n1.read(BOB, [ANN])


async def test_news_waits_for_the_database(house: House, n1: Presence) -> None:
    house.members.is_down = True
    n1.arrived(ANN)
    await house.wait(SOON_S)
    with pytest.raises(BackendDown):
        await n1.tell()
    house.members.is_down = False
    await house.wait(0.5)
    assert house.heard() == [(ANN, "online")]


async def test_many_are_told_of_at_a_measured_pace(house: House, n1: Presence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TOLD_MAX", 2)
    monkeypatch.setattr(service, "NEWS_MAX", 5)
    users = [UserId(f"u{n}") for n in range(6)]
    house.members.conversations = {"lunch": users}
    for user in users:
        n1.arrived(user)
    await house.wait(0.5 + DEBOUNCE_S)
    for pair in ((1, 2), (3, 4), (5,)):
        assert house.heard() == [(f"u{n}", "online") for n in pair]
        await house.wait(0.5)
    assert n1.dropped_total == 1


async def test_in_crowded_rooms_fewer_are_told_of_at_once(house: House, n1: Presence) -> None:
    users = [UserId(f"u{n}") for n in range(5)]
    house.members.conversations = {"lunch": users}
    house.listeners = LISTENERS_MAX // 2
    for user in users:
        n1.arrived(user)
    await house.wait(0.5 + DEBOUNCE_S)
    for pair in ((0, 1), (2, 3), (4,)):
        assert house.heard() == [(f"u{n}", "online") for n in pair]
        await house.wait(0.5)


# -- visits


async def test_who_says_that_she_is_there_is_for_five_minutes_on_every_node(house: House, n1: Presence, n2: Presence) -> None:
    await n1.visit(ANN, is_there=True)
    await house.wait(SOON_S)
    assert house.heard() == [(ANN, "online")]
    await house.wait(VISIT_S - SOON_S - 1)
    assert await status(n2, ANN)
    await house.wait(1 + EXPIRE_S + SOON_S)
    assert house.heard() == [(ANN, "offline")]
    await n1.visit(ANN, is_there=True)
    n1.arrived(ANN)
    await house.wait(SOON_S)
    await n2.visit(ANN, is_there=False)
    assert await status(n2, ANN), "her socket"


async def test_a_visit_while_the_store_is_away_is_no_error_and_keeps_nothing(n1: Presence, store: Unsteady) -> None:
    store.is_away = True
    await n1.visit(ANN, is_there=True)
    assert not await status(n1, ANN)


# -- the store is away


async def test_while_the_store_is_away_a_node_knows_its_own(house: House, n1: Presence, n2: Presence, store: Unsteady) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    house.told.clear()
    store.is_away = True
    await house.wait(EXPIRE_S + 0.5)
    assert (n1.is_partial, n2.is_partial) == (True, True)
    assert await n1.read(BOB, [ANN]) == ([Sighting(ANN, True)], True)
    assert await n2.read(BOB, [ANN]) == ([Sighting(ANN, False)], True)
    n2.arrived(BOB)
    n1.left(ANN)
    await house.wait(GONE_S)
    assert [(one.node, one.user, one.status, one.more["partial"]) for one in house.told] == [
        ("n2", BOB, "online", True),
        ("n1", ANN, "offline", True),
    ]


async def test_a_question_that_finds_the_store_away_is_answered_from_here(n1: Presence, store: Unsteady) -> None:
    n1.arrived(ANN)
    store.is_away = True
    assert await n1.read(BOB, [ANN]) == ([Sighting(ANN, True)], True)


async def test_after_an_empty_return_all_is_rebuilt_from_who_is_there_then(
    house: House, n1: Presence, n2: Presence, store: Unsteady
) -> None:
    n1.arrived(ANN)
    n2.arrived(BOB)
    await house.wait(SOON_S)
    store.is_away = True
    await house.wait(EXPIRE_S + 0.5)
    n1.left(ANN)
    n2.arrived(EVE)
    await house.wait(GONE_S)
    house.told.clear()
    store.is_away, store.store = False, MemoryLeaseStore(house.time)
    await house.wait(0.5)
    assert n1.is_partial, "not all have taken their leases"
    await house.wait(WHOLE_S)
    assert not n1.is_partial
    assert [one.is_there for one in (await n1.read(BOB, [BOB]))[0]] == [True]
    assert [one.user for one in await store.store.look([ANN, BOB, EVE]) if one.is_there] == [BOB, EVE]
    await house.wait(SOON_S)
    assert sorted(house.heard()) == [(ANN, "offline"), (BOB, "online")], "and Eve has no conversation"


async def test_a_store_that_was_lost_between_two_calls_is_rebuilt_too(store: Unsteady, house: House) -> None:
    generation = [1]
    house = House(store, house.time, generation=lambda: generation[0])
    node = house.start("n1")
    node.arrived(ANN)
    await house.wait(SOON_S)
    store.store, generation[0] = MemoryLeaseStore(house.time), 2
    await house.wait(EXPIRE_S)
    assert node.is_partial
    await house.wait(WHOLE_S)
    assert not node.is_partial
    assert (await store.look([ANN]))[0].is_there


async def test_who_moved_to_another_node_during_an_outage_is_not_told_to_have_gone_when_it_is_over(
    house: House, n1: Presence, n2: Presence, store: Unsteady
) -> None:
    n1.arrived(ANN)
    await house.wait(SOON_S)
    store.is_away = True
    await house.wait(EXPIRE_S + 0.5)
    n1.left(ANN)
    n2.arrived(ANN)
    await house.wait(GONE_S)
    house.told.clear()
    store.is_away = False
    await house.wait(WHOLE_S + SOON_S)
    assert house.heard() == [(ANN, "online")] * 2, "by the node that has her, and by the one that had said otherwise"
    assert await status(n1, ANN)


async def test_what_a_node_told_wrongly_during_an_outage_it_puts_right(
    house: House, n1: Presence, n2: Presence, store: Unsteady
) -> None:
    n1.arrived(ANN)
    n2.arrived(ANN)
    await house.wait(SOON_S)
    store.is_away = True
    await house.wait(EXPIRE_S + 0.5)
    house.told.clear()
    n2.left(ANN)
    await house.wait(GONE_S)
    assert house.heard() == [(ANN, "offline")], "as far as this node can know, and marked"
    store.is_away = False
    await house.wait(WHOLE_S + SOON_S)
    assert house.told == [Told("n2", "conversation:lunch", ANN, "online", {})]


async def test_nothing_is_told_before_all_nodes_had_their_time(house: House, n1: Presence, n2: Presence, store: Unsteady) -> None:
    n1.arrived(ANN)
    n2.arrived(ANN)
    await house.wait(SOON_S)
    house.told.clear()
    n2.left(ANN)
    await house.wait(EXPIRE_S)
    store.is_away = True
    await house.wait(LINGER_S - EXPIRE_S + 0.5)
    store.is_away, store.store = False, MemoryLeaseStore(house.time)
    await house.wait(WHOLE_S + SOON_S)
    assert house.heard() == [(ANN, "online")]


@pytest.mark.parametrize("is_coming", [True, False])
async def test_a_change_whose_answer_was_lost_is_told_all_the_same(
    house: House, n1: Presence, store: Unsteady, is_coming: bool
) -> None:
    if not is_coming:
        n1.arrived(ANN)
        await house.wait(SOON_S)
        house.told.clear()
        n1.left(ANN)
        await house.wait(LINGER_S - 0.5)
    else:
        await house.wait(1)
        n1.arrived(ANN)
    store.loses_answers_of = "hold" if is_coming else "release"
    await house.wait(1)
    assert (await store.store.look([ANN]))[0].is_there == is_coming, "it was done"
    assert n1.is_partial
    store.loses_answers_of = ""
    await house.wait(WHOLE_S + GONE_S)
    assert (await store.look([ANN]))[0].is_there == is_coming
    assert house.heard()[-1] == (ANN, "online" if is_coming else "offline")


async def test_a_round_that_ran_out_of_time_counts_as_failed(house: House, n1: Presence) -> None:
    n1.failed()
    assert n1.is_partial
    await house.wait(WHOLE_S)
    assert not n1.is_partial
