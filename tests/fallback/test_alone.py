"""The tasks of a node without its database, on virtual time: what it knows at the start, what it says, what it asks again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing
from tests.features.access.test_access import ADA, BOB, HERE, Store
from tests.features.auth.kit import House, InlineBlocking, Outage, no_entry, open_house

from secureconnect.backends.memory.auth import MemorySessions
from secureconnect.errors import BackendDown
from secureconnect.fallback.alone import Alone
from secureconnect.features.access.service import CACHE_S, Access
from secureconnect.features.auth.model import Login, Revocation
from secureconnect.ids import ConversationId, UserId
from secureconnect.testing.faulty_disk import FaultyDisk

LIFE_S = 900


@dataclass
class Rows:
    """The revocations' store of one node."""

    house: House
    is_away: bool = False

    async def since(self, number: int, *, live_us: int, limit: int) -> Sequence[Revocation]:
        if self.is_away:
            await trio.lowlevel.checkpoint()
            raise BackendDown("sql")
        return await self.house.revocation_rows.since(number, live_us=live_us, limit=limit)


@dataclass
class Place:
    """A node's start: everything about the database goes away and comes back with `set_away`."""

    house: House
    disk: FaultyDisk
    alone: Alone
    rows: Rows
    members: Store
    access: Access
    sql: Outage
    removed: list[tuple[ConversationId, UserId]] = field(default_factory=list)

    def set_away(self, is_away: bool) -> None:
        self.rows.is_away = self.members.is_away = self.sql.is_on = is_away

    async def load(self) -> None:
        await self.house.revocations.load(self.rows)

    def is_away(self) -> bool:
        return self.rows.is_away


def place(house: House | None = None, disk: FaultyDisk | None = None) -> Place:
    house, disk, members = house or open_house(), disk or FaultyDisk(), Store()
    alone, rows, sql = Alone(disk, InlineBlocking(), clock=house.clock), Rows(house), Outage(house.sessions)
    access = Access(members, trio.current_time)
    here = Place(house, disk, alone, rows, members, access, sql)
    house.auth._sessions = house.auth.endings._sessions = cast("MemorySessions", sql)
    house.auth.endings._keep = alone.keep_ending
    alone.serve(
        house.auth.endings,
        house.revocations,
        rows,
        access,
        removed=lambda conversation, user: here.removed.append((conversation, user)),
        access_token_s=LIFE_S,
        deadline_s=5.0,
    )
    return here


async def ended_before(*, save: bool) -> tuple[Place, Login, Login]:
    """A node has run, somebody has logged out there, and it has died. Then who logged out, and who did not."""
    first = place()
    await first.alone.load()
    out, still_in = await first.house.register("ada"), await first.house.register("bob")
    async with trio.open_nursery() as nursery:
        await nursery.start(first.alone.run, first.is_away)
        await first.house.auth.logout(first.house.auth.verify(out.access_token))
        await trio.sleep(5 if save else 0)
        nursery.cancel_scope.cancel()
    return place(first.house.neighbour(), first.disk.after_power_cut()), out, still_in


async def test_a_node_that_starts_without_the_store_judges_by_what_it_knew_last(autojump_clock: trio.testing.MockClock) -> None:
    again, out, still_in = await ended_before(save=True)
    again.set_away(True)
    known = trio.Event()
    await again.alone.load()
    async with trio.open_nursery() as nursery:
        await nursery.start(again.alone.run, again.is_away)
        nursery.start_soon(lambda: again.alone.wait_for_store(again.load, known=known.set))
        with trio.fail_after(5):
            await known.wait()
        no_entry(again.house, out)
        assert again.house.lets_in(still_in)
        await trio.sleep(60)
        no_entry(again.house, out)
        nursery.cancel_scope.cancel()


async def test_a_node_that_knows_nothing_lets_no_token_be_judged_before_the_store_was_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    again, out, _ = await ended_before(save=False)
    again.disk.files.clear()
    again.set_away(True)
    known = trio.Event()
    await again.alone.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: again.alone.wait_for_store(again.load, known=known.set))
        await trio.sleep(60)
        assert not known.is_set()
        again.set_away(False)
        await trio.sleep(2)
        assert known.is_set()
    no_entry(again.house, out)


async def test_what_ended_here_is_said_again_until_the_store_has_it(autojump_clock: trio.testing.MockClock) -> None:
    """Another node was out of reach: it hears of it within 2 s of its return, while the store is still away."""
    here = place()
    await here.alone.load()
    login = await here.house.register("ada")
    async with trio.open_nursery() as nursery:
        await nursery.start(here.alone.run, here.is_away)
        here.set_away(True)
        await here.house.auth.logout(here.house.auth.verify(login.access_token))
        await trio.sleep(10)
        late = here.house.neighbour()
        assert late.lets_in(login)
        await trio.sleep(2)
        no_entry(late, login)
        here.set_away(False)
        await trio.sleep(2)
        said = len(here.house.signals)
        await trio.sleep(10)
        assert len(here.house.signals) == said
        nursery.cancel_scope.cancel()
    (receipt,) = here.alone.receipts.all
    assert receipt.counts == {"applied": {"": 1}}
    assert here.alone.queues()["outage_log"]["depth"] == 0


async def test_on_return_who_was_removed_meanwhile_is_told_and_who_was_not_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    here = place()
    await here.alone.load()
    for user in (ADA, BOB):
        here.members.admit(HERE, user)
        await here.access.member(HERE, user)
    async with trio.open_nursery() as nursery:
        await nursery.start(here.alone.run, here.is_away)
        here.set_away(True)
        await trio.sleep(CACHE_S + 1)
        for user in (ADA, BOB):
            await here.access.member(HERE, user)
        del here.members.members[HERE, BOB]  # on a node that reaches the store
        await trio.sleep(10)
        assert here.removed == []
        here.set_away(False)
        await trio.sleep(2)
        assert here.removed == [(HERE, BOB)]
        nursery.cancel_scope.cancel()
