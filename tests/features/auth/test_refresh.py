"""Refreshing: replacement, repetition, reuse."""

from __future__ import annotations

import pytest
import trio
from tests.features.auth.kit import no_entry, open_house, refused

from secureconnect.errors import BackendDown, NotAuthenticated, OutcomeUnknown
from secureconnect.features.auth.model import Exchange, Login, LoginSession, Rotation
from secureconnect.ids import SessionId


async def test_a_refresh_replaces_the_token_within_the_session() -> None:
    house = open_house()
    first = await house.register("ada")
    house.clock.advance(600)
    second = await house.auth.refresh(first.refresh_token)
    assert second.session == first.session
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    house.clock.advance(600)
    no_entry(house, first, "TOKEN_EXPIRED")
    assert house.auth.verify(second.access_token).session == first.session
    third = await house.auth.refresh(second.refresh_token)
    assert house.lets_in(third)
    assert house.signals == []


async def test_reuse_ends_the_whole_family() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token)
    await refused(house.auth.refresh(first.refresh_token), "UNAUTHORIZED")
    assert house.ended == [(first.session, "reuse")]
    for login in (first, second):
        no_entry(house, login)
        await refused(house.auth.refresh(login.refresh_token), "UNAUTHORIZED")
    assert len(house.signals) == 1  # an ended session does not end again


async def test_reuse_of_a_token_that_is_long_gone_ends_the_family_too() -> None:
    house = open_house()
    first = login = await house.register("ada")
    for _ in range(5):
        login = await house.auth.refresh(login.refresh_token)
    await refused(house.auth.refresh(first.refresh_token), "UNAUTHORIZED")
    no_entry(house, login)


async def test_a_forged_refresh_token_ends_nothing() -> None:
    """Who knows a session's id cannot put its user out."""
    house = open_house()
    login = await house.register("ada")
    for forged in (f"{login.session}.{'A' * 64}", login.refresh_token[:-1] + "_", login.access_token, login.session, "", "é"):
        if forged != login.refresh_token:
            await refused(house.auth.refresh(forged), "UNAUTHORIZED")
    assert house.signals == []
    assert house.lets_in(await house.auth.refresh(login.refresh_token))


async def test_a_lost_answer_is_given_again() -> None:
    house = open_house()
    first = await house.register("ada")
    house.clock.advance(100)
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="try 1")
    assert await house.auth.refresh(first.refresh_token, client_refresh_id="try 1") == second
    house.clock.advance(59)
    again = await house.auth.refresh(first.refresh_token, client_refresh_id="try 1")
    assert (again.access_token, again.refresh_token, again.expires_at_s) == (
        second.access_token, second.refresh_token, second.expires_at_s,
    )  # fmt: skip
    assert again.expires_in_s == second.expires_in_s - 59
    assert house.lets_in(await house.auth.refresh(second.refresh_token, client_refresh_id="try 2"))
    assert house.signals == []


async def test_a_lost_answer_is_given_again_by_another_node() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    assert await house.neighbour().auth.refresh(first.refresh_token, client_refresh_id="a") == second


@pytest.mark.parametrize(("repeat_id", "after_s"), [("other", 1), (None, 1), ("a", 60), ("a", 3600)])
async def test_any_other_repetition_is_reuse(repeat_id: str | None, after_s: float) -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    house.clock.advance(after_s)
    await refused(house.auth.refresh(first.refresh_token, client_refresh_id=repeat_id), "UNAUTHORIZED")
    assert house.ended == [(first.session, "reuse")]
    await refused(house.auth.refresh(second.refresh_token), "UNAUTHORIZED")


async def test_an_answer_that_arrived_cannot_be_asked_for_again() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    await house.auth.refresh(second.refresh_token, client_refresh_id="b")
    await refused(house.auth.refresh(first.refresh_token, client_refresh_id="a"), "UNAUTHORIZED")
    assert house.ended == [(first.session, "reuse")]


async def test_a_token_that_was_stolen_tells_nobody_the_next_one() -> None:
    """Neither the old token nor the id, nor both, lead to the new token without the server's secret."""
    house, other = open_house(), open_house(seed=7)
    first = await house.register("ada")
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    assert other.tokens.read_refresh(first.refresh_token) is not None  # the same secret of the tests
    stranger = type(house.tokens)(b"the attacker's own secret, 32 bytes", house.clock)
    present = house.tokens.read_refresh(first.refresh_token)
    assert present is not None
    assert stranger.next_refresh(present, "a").text != second.refresh_token


async def test_concurrent_refreshes_never_fork_a_family() -> None:
    house = open_house()
    first = await house.register("ada")
    answers: list[Login] = []
    refusals: list[NotAuthenticated] = []

    async def attempt() -> None:
        try:
            answers.append(await house.auth.refresh(first.refresh_token))
        except NotAuthenticated as error:
            refusals.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert (len(answers), len(refusals)) == (1, 7)
    assert house.ended == [(first.session, "reuse")]


async def test_concurrent_refreshes_with_one_id_are_one_refresh() -> None:
    house = open_house()
    first = await house.register("ada")
    answers: list[Login] = []

    async def attempt() -> None:
        answers.append(await house.auth.refresh(first.refresh_token, client_refresh_id="a"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(attempt)
    assert answers == [answers[0]] * 8
    assert house.signals == []


async def test_a_refresh_of_unknown_outcome_can_be_repeated() -> None:
    house = open_house()
    first = await house.register("ada")
    really = house.sessions.rotate

    async def torn(session: SessionId, exchange: Exchange) -> Rotation:
        await really(session, exchange)
        raise OutcomeUnknown

    house.sessions.rotate = torn  # type: ignore[method-assign]  # the answer of the store is lost
    with pytest.raises(OutcomeUnknown):
        await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    house.sessions.rotate = really  # type: ignore[method-assign]
    second = await house.auth.refresh(first.refresh_token, client_refresh_id="a")
    assert house.lets_in(await house.auth.refresh(second.refresh_token))


async def test_a_session_that_is_not_used_for_a_month_is_over() -> None:
    house = open_house()
    login = await house.register("ada")
    for _ in range(3):  # each refresh begins the month again
        house.clock.advance(29 * 86_400)
        login = await house.auth.refresh(login.refresh_token)
    house.clock.advance(30 * 86_400)
    await refused(house.auth.refresh(login.refresh_token), "UNAUTHORIZED")
    assert house.signals == []


async def test_when_the_store_is_away_refresh_says_so_and_changes_nothing() -> None:
    house = open_house()
    login = await house.register("ada")

    async def away(session: SessionId) -> LoginSession | None:
        raise BackendDown("sql")

    house.sessions.session = away  # type: ignore[method-assign]
    with pytest.raises(BackendDown):
        await house.auth.refresh(login.refresh_token)
    del house.sessions.session
    assert house.lets_in(await house.auth.refresh(login.refresh_token))
