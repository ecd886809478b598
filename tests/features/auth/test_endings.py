"""Being put out: at once, everywhere, for good."""

from __future__ import annotations

import json

import pytest
from tests.features.auth.kit import PASSWORD, Ended, no_entry, open_house, refused

from secureconnect.errors import BackendDown, NotAuthenticated, NotFound
from secureconnect.features.auth.endings import SESSION_ENDED
from secureconnect.ids import SessionId


async def test_logout_ends_the_session_at_once_and_only_it() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.login("ada@example.com", PASSWORD)
    identity = house.auth.verify(first.access_token)
    await house.auth.logout(identity)
    assert house.ended == [(first.session, "logout")]
    no_entry(house, first)
    with pytest.raises(NotAuthenticated):
        house.auth.check(identity)
    await refused(house.auth.refresh(first.refresh_token), "UNAUTHORIZED")
    assert house.lets_in(second)


async def test_who_was_let_in_is_put_out_when_the_token_has_expired() -> None:
    """A socket asks again before each command; its token may have ended since the handshake."""
    house = open_house()
    identity = house.auth.verify((await house.register("ada")).access_token)
    house.auth.check(identity)
    house.clock.advance(3600)
    with pytest.raises(NotAuthenticated) as caught:
        house.auth.check(identity)
    assert caught.value.word == "TOKEN_EXPIRED"


async def test_logout_ends_every_token_of_the_session() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token)
    await house.auth.logout(house.auth.verify(first.access_token))
    no_entry(house, second)


async def test_a_logout_that_the_store_refuses_did_not_happen() -> None:
    house = open_house()
    login = await house.register("ada")

    async def away(*args: object) -> bool:
        raise BackendDown("sql")

    house.sessions.end = away  # type: ignore[assignment,method-assign]
    with pytest.raises(BackendDown):
        await house.auth.logout(house.auth.verify(login.access_token))
    assert house.signals == []
    assert house.lets_in(login)


async def test_who_logs_out_twice_at_once_is_out() -> None:
    house = open_house()
    login = await house.register("ada")
    identity = house.auth.verify(login.access_token)
    await house.auth.logout(identity)
    await house.auth.logout(identity)
    no_entry(house, login)


async def test_a_revocation_survives_a_restart() -> None:
    house = open_house()
    login = await house.register("ada")
    await house.auth.logout(house.auth.verify(login.access_token))
    restarted = house.neighbour()
    assert restarted.lets_in(login)  # the token itself is still good
    await restarted.revocations.load(house.revocation_rows)
    no_entry(restarted, login)
    assert restarted.signals == []


async def test_other_nodes_hear_it_by_the_signal() -> None:
    house = open_house()
    login = await house.register("ada")
    other = house.neighbour()
    assert other.lets_in(login)
    await house.auth.logout(house.auth.verify(login.access_token))
    no_entry(other, login)


async def test_other_nodes_find_it_in_the_store_when_the_signal_is_lost() -> None:
    house = open_house()
    login = await house.register("ada")
    other = house.neighbour()
    house.others.clear()
    await house.auth.logout(house.auth.verify(login.access_token))
    assert other.lets_in(login)
    await other.auth.endings.follow(house.revocation_rows)
    no_entry(other, login)
    assert other.ended == [(login.session, "logout")]  # its sockets hang up too
    await other.auth.endings.follow(house.revocation_rows)
    assert len(other.signals) == 1


async def test_the_signal_says_which_session_of_whom_and_why() -> None:
    house = open_house()
    login = await house.register("ada")
    await house.auth.logout(house.auth.verify(login.access_token))
    name, data = house.signals[0]
    assert name == SESSION_ENDED
    assert json.loads(data) == {"session_id": login.session, "user_id": login.user.id, "reason": "logout"}
    assert set(json.loads(data)) == set(Ended.__struct_fields__)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"session_id":1,"user_id":"u","reason":"logout"}'])
def test_a_signal_that_makes_no_sense_is_ignored(data: bytes) -> None:
    house = open_house()
    house.auth.endings.heard(data)
    assert len(house.revocations) == 0


async def test_a_full_revocation_set_refuses_old_tokens_and_refresh_brings_them_back() -> None:
    house = open_house(entries_max=2)
    ada = await house.register("ada")
    for name in ("bob", "cyd", "dan"):
        login = await house.register(name)
        house.clock.advance(1)
        await house.auth.logout(house.auth.verify(login.access_token))
    no_entry(house, ada, "TOKEN_EXPIRED")
    house.clock.advance(400)
    assert house.lets_in(await house.auth.refresh(ada.refresh_token))


async def test_a_user_sees_and_ends_his_own_sessions_only() -> None:
    house = open_house()
    ada = await house.register("ada")
    house.clock.advance(1)
    phone = await house.auth.login("ada@example.com", PASSWORD)
    eve = await house.register("eve")
    assert [session.id for session in await house.auth.sessions(ada.user.id)] == [phone.session, ada.session]
    for user, session in ((eve.user.id, ada.session), (ada.user.id, SessionId("unknown"))):
        with pytest.raises(NotFound):
            await house.auth.end_session(user, session)
    assert house.signals == []
    await house.auth.end_session(ada.user.id, phone.session)
    assert house.ended == [(phone.session, "logout")]
    no_entry(house, phone)
    with pytest.raises(NotFound):
        await house.auth.end_session(ada.user.id, phone.session)
    assert [session.id for session in await house.auth.sessions(ada.user.id)] == [ada.session]


async def test_logout_of_a_session_that_another_node_ended_counts_here_too() -> None:
    house = open_house()
    login = await house.register("ada")
    other = house.neighbour()
    house.others.clear()
    await house.auth.logout(house.auth.verify(login.access_token))
    await other.auth.logout(other.auth.verify(login.access_token))
    no_entry(other, login)
    assert other.ended == [(login.session, "logout")]


async def test_a_revocation_outlives_tokens_of_a_node_whose_clock_is_ahead() -> None:
    house = open_house()
    login = await house.register("ada")
    house.clock.advance(300)  # the most that a verifier forgives
    ahead = await house.auth.refresh(login.refresh_token)
    house.clock.advance(-300)
    await house.auth.logout(house.auth.verify(ahead.access_token))
    (row,) = await house.revocation_rows.since(0, live_us=0, limit=10)
    assert row.until_us >= ahead.expires_at_s * 1_000_000
