"""The sessions' store is away: what was revoked stays so, what is revoked holds and comes home, and nothing is forked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
from tests.features.auth.kit import PASSWORD, House, Outage, no_entry, open_house, refused

from secureconnect.backends.memory.auth import MemorySessions
from secureconnect.errors import BackendDown, NotFound
from secureconnect.fallback import OutageLog, Receipts, SyncBack
from secureconnect.fallback.endings import KIND, KeptEndings, endings_rule
from secureconnect.features.auth.model import Ending
from secureconnect.ids import SessionId, UserId, as_uuid
from secureconnect.testing.faulty_disk import FaultyDisk


@dataclass
class Node:
    """A house whose store may be away, with a disk beside it."""

    house: House
    sql: Outage
    disk: FaultyDisk
    sync: SyncBack
    endings: KeptEndings


async def node(house: House | None = None, disk: FaultyDisk | None = None) -> Node:
    """`house`: another start of its node, on the same stores."""
    house, disk = house or open_house(), disk or FaultyDisk()
    sql = Outage(house.sessions)
    rules = {KIND: endings_rule(house.auth.endings)}
    sync = SyncBack("sql", OutageLog(disk, "sql.outage"), Receipts(disk), rules, clock=house.clock)
    endings = KeptEndings(sync)
    house.auth._sessions = house.auth.endings._sessions = cast("MemorySessions", sql)
    house.auth.endings._keep = endings.keep
    await sync.load()
    return Node(house, sql, disk, sync, endings)


async def test_a_logout_is_accepted_holds_at_once_and_everywhere_and_is_stored_on_return() -> None:
    here = await node()
    login = await here.house.register("ada")
    neighbour = here.house.neighbour()
    identity = here.house.auth.verify(login.access_token)
    here.sql.is_on = True
    assert await here.house.auth.logout(identity) == "accepted"
    no_entry(here.house, login)
    no_entry(neighbour, login)
    assert here.house.ended == [(login.session, "logout")]
    assert await here.house.revocation_rows.since(0, live_us=0, limit=10) == []
    here.sql.is_on = False
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"applied": {"": 1}}
    (row,) = await here.house.revocation_rows.since(0, live_us=0, limit=10)
    assert (row.session, row.user, row.reason) == (login.session, login.user.id, "logout")
    await refused(here.house.auth.refresh(login.refresh_token), "UNAUTHORIZED")


async def test_while_the_store_is_there_an_ending_is_stored() -> None:
    here = await node()
    login = await here.house.register("ada")
    assert await here.house.auth.logout(here.house.auth.verify(login.access_token)) == "stored"
    assert here.sync.pending == []


async def test_an_accepted_logout_survives_kill_and_holds_before_the_first_request() -> None:
    here = await node()
    login = await here.house.register("ada")
    here.sql.is_on = True
    await here.house.auth.logout(here.house.auth.verify(login.access_token))
    again = await node(here.house.neighbour(), here.disk.after_power_cut())
    again.endings.hold(again.house.auth.endings)
    no_entry(again.house, login)
    await again.sync.replay()
    await refused(again.house.auth.refresh(login.refresh_token), "UNAUTHORIZED")


async def test_an_ending_that_neither_store_nor_disk_takes_is_refused_and_in_force_all_the_same() -> None:
    here = await node()
    login = await here.house.register("ada")
    identity = here.house.auth.verify(login.access_token)
    here.sql.is_on = here.disk.fails = True
    with pytest.raises(BackendDown) as caught:
        await here.house.auth.logout(identity)
    assert caught.value.name == "disk"
    no_entry(here.house, login)


async def test_another_session_of_mine_ends_too_and_nobody_elses() -> None:
    """Nobody can ask whose session it is. So the entry names who ended it, and binds the tokens of nobody else."""
    here = await node()
    ada, eve = await here.house.register("ada"), await here.house.register("eve")
    phone = await here.house.auth.login("ada@example.com", PASSWORD)
    here.sql.is_on = True
    assert await here.house.auth.end_session(ada.user.id, phone.session) == "accepted"
    assert await here.house.auth.end_session(eve.user.id, ada.session) == "accepted"
    no_entry(here.house, phone)
    assert here.house.lets_in(ada)
    here.sql.is_on = False
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"applied": {"": 1}, "conflicted": {"NOT_FOUND": 1}}
    assert here.house.lets_in(await here.house.auth.refresh(ada.refresh_token))


async def test_what_cannot_be_a_session_is_unknown_without_asking_anybody() -> None:
    here = await node()
    ada = await here.house.register("ada")
    here.sql.is_on = True
    with pytest.raises(NotFound):
        await here.house.auth.end_session(ada.user.id, SessionId("no session at all"))
    assert here.sync.pending == []


async def test_a_session_that_another_node_ended_meanwhile_is_superseded_and_stays_ended() -> None:
    here = await node()
    login = await here.house.register("ada")
    other = here.house.neighbour()
    here.house.others.clear()
    here.sql.is_on = True
    await here.house.auth.logout(here.house.auth.verify(login.access_token))
    await other.auth.logout(other.auth.verify(login.access_token))
    here.sql.is_on = False
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"superseded": {"known": 1}}
    assert len(await here.house.revocation_rows.since(0, live_us=0, limit=10)) == 1


async def test_a_token_that_another_node_gave_out_after_the_logout_ends_with_the_session() -> None:
    """The other node reached the store all the time, and heard nothing."""
    here = await node()
    login = await here.house.register("ada")
    other = here.house.neighbour()
    here.house.others.clear()
    here.sql.is_on = True
    await here.house.auth.logout(here.house.auth.verify(login.access_token))
    for _ in range(10):
        here.house.clock.advance(800)
        login = await other.auth.refresh(login.refresh_token)
        here.endings.hold(here.house.auth.endings)  # as the node does all the time
        no_entry(here.house, login)
        assert other.lets_in(login)
    here.sql.is_on = False
    await here.sync.replay()
    await other.auth.endings.follow(here.house.revocation_rows)
    no_entry(other, login)


async def test_what_waits_is_said_again_in_turns() -> None:
    here = await node()
    users = [UserId(as_uuid(bytes([number] * 16))) for number in range(5)]
    for user in users:
        await here.endings.keep(SessionId(user), user, Ending("logout", 0, 0))
    said: list[str] = []
    for _ in range(5):
        here.house.signals.clear()
        here.endings.hold(here.house.auth.endings, most=2)
        said += [session for session, _ in here.house.ended]
    assert said == [*users, *users[:4]]


async def test_refreshing_is_refused_while_the_store_is_away_and_goes_on_afterwards() -> None:
    """Never forked: neither a new token nor an end of the session, whatever part of the store answers."""
    here = await node()
    login = await here.house.register("ada")
    here.sql.is_on = True
    for here.sql.reads in (False, True):
        with pytest.raises(BackendDown):
            await here.house.auth.refresh(login.refresh_token, client_refresh_id="again")
        assert here.house.lets_in(login)
    assert here.sync.pending == []
    here.sql.is_on = False
    assert here.house.lets_in(await here.house.auth.refresh(login.refresh_token, client_refresh_id="again"))


async def test_a_stolen_refresh_token_ends_the_session_although_only_reading_works() -> None:
    here = await node()
    first = await here.house.register("ada")
    second = await here.house.auth.refresh(first.refresh_token)
    third = await here.house.auth.refresh(second.refresh_token)
    here.sql.is_on = here.sql.reads = True
    with pytest.raises(BackendDown):  # the one just before: its answer may have been lost
        await here.house.auth.refresh(second.refresh_token)
    assert here.house.lets_in(third)
    await refused(here.house.auth.refresh(first.refresh_token), "UNAUTHORIZED")
    no_entry(here.house, third)
    here.sql.is_on = False
    await here.sync.replay()
    (row,) = await here.house.revocation_rows.since(0, live_us=0, limit=10)
    assert (row.session, row.reason) == (first.session, "reuse")
