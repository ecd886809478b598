"""Registering and logging in, by the route and by the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from tests.features.auth.kit import PASSWORD, House, no_entry, open_house, refused, registration

from secureconnect.errors import BadRequest, Forbidden, NotAuthenticated, NotFound
from secureconnect.features.auth.model import Credentials, Device, Login, LoginSession, User
from secureconnect.features.auth.passwords import Cost
from secureconnect.features.auth.store import EmailTaken, UsernameTaken
from secureconnect.ids import is_uuid


def set_status(house: House, login: Login, status: str) -> None:
    known = house.users._users[login.user.id]
    house.users._users[login.user.id] = replace(known, user=replace(known.user, status=status))


async def test_who_registers_is_logged_in() -> None:
    house = open_house()
    login = await house.register("ada")
    identity = house.auth.verify(login.access_token)
    assert (identity.user, identity.session) == (login.user.id, login.session)
    assert is_uuid(login.user.id)
    assert is_uuid(login.session)
    assert (login.user.email, login.user.username, login.user.display_name) == ("ada@example.com", "ada", "Ada")
    assert (login.user.role, login.user.status) == ("user", "offline")
    assert login.expires_in_s == 900
    assert login.expires_at_s == identity.expires_at_s


async def test_nothing_that_is_stored_is_a_password_or_a_token() -> None:
    house = open_house()
    login = await house.register("ada")
    after = await house.auth.refresh(login.refresh_token, client_refresh_id="a")
    stored = f"{vars(house.users)} {house.sessions._sessions} {house.revocation_rows._rows}"
    kept = [house.users._users[login.user.id].password_hash, *map(str, vars_of(house.sessions._sessions[login.session]))]
    for secret in (PASSWORD, login.refresh_token, after.refresh_token, login.access_token, after.access_token):
        assert secret not in stored
        assert all(secret not in text and secret.rsplit(".", 1)[-1] not in text for text in kept)


async def test_an_address_registers_once_whatever_its_case() -> None:
    house = open_house()
    await house.register("ada")
    with pytest.raises(EmailTaken) as refusal:
        await house.auth.register(replace(registration("eve"), email=" ADA@Example.com "))
    assert (refusal.value.word, refusal.value.status) == ("EMAIL_EXISTS", 409)
    assert str(refusal.value) == "email already registered"


async def test_a_username_is_given_once() -> None:
    house = open_house()
    await house.register("ada")
    with pytest.raises(UsernameTaken) as refusal:
        await house.auth.register(replace(registration("eve"), username="ada"))
    assert (refusal.value.word, str(refusal.value)) == ("USERNAME_EXISTS", "username already taken")


async def test_of_many_who_register_at_once_with_one_address_one_gets_it() -> None:
    house = open_house()
    outcomes: list[str] = []

    async def attempt(number: int) -> None:
        try:
            await house.auth.register(replace(registration("ada"), username=f"ada{number}"))
            outcomes.append("in")
        except EmailTaken:
            outcomes.append("taken")

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(attempt, number)
    assert sorted(outcomes) == ["in"] + ["taken"] * 7


async def test_without_a_username_one_is_made_that_is_free() -> None:
    house = open_house()
    names = []
    for number in range(4):
        asked = replace(registration(f"ada{number}"), username=None, display_name="Ada Lovelace")
        names.append((await house.auth.register(asked)).user.username)
    assert names[0] == "ada.lovelace"
    assert len(set(names)) == 4
    assert all(name.startswith("ada.lovelace") for name in names)


async def test_a_made_username_that_stays_taken_is_said_in_the_end() -> None:
    house = open_house()
    house.auth._rng.random = lambda: 0.5  # type: ignore[method-assign]  # chance that always says the same
    asked = [replace(registration(f"ada{number}"), username=None, display_name="Ada Lovelace") for number in range(3)]
    given = [(await house.auth.register(one)).user.username for one in asked[:2]]
    assert given == ["ada.lovelace", "ada.lovelace.500000"]
    with pytest.raises(UsernameTaken):
        await house.auth.register(asked[2])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "ada"}, "email"),
        ({"username": "a b"}, "username"),
        ({"password": "short"}, "password"),
        ({"display_name": " "}, "display_name"),
    ],
)
async def test_a_wrong_field_is_named_before_any_work_is_done(change: dict[str, str], field: str) -> None:
    house = open_house()
    with pytest.raises(BadRequest) as refusal:
        await house.auth.register(replace(registration(), **change))
    assert refusal.value.details["field"] == field
    assert house.blocking.runs == 0


async def test_the_right_password_opens_a_session_of_its_own() -> None:
    house = open_house()
    first = await house.register("ada")
    second = await house.auth.login(" ADA@example.com", PASSWORD, Device("phone", "curl/8", "127.0.0.1"))
    assert second.user == first.user
    assert second.session != first.session
    sessions = await house.auth.sessions(first.user.id)
    assert [session.device for session in sessions if session.id == second.session] == [Device("phone", "curl/8", "127.0.0.1")]


async def test_a_wrong_password_and_an_unknown_address_do_and_say_the_same() -> None:
    house = open_house()
    await house.register("ada")
    said, runs = [], []
    for email, password in (("ada@example.com", "wrong password"), ("eve@example.com", PASSWORD), ("no address", PASSWORD)):
        house.blocking.runs = 0
        with pytest.raises(NotAuthenticated) as refusal:
            await house.auth.login(email, password)
        said.append((str(refusal.value), refusal.value.word, refusal.value.details, refusal.value.retry_after_s))
        runs.append(house.blocking.runs)
    assert said == [("Invalid email or password", "INVALID_CREDENTIALS", {}, None)] * 3
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800"])
async def test_impossible_passwords_are_refused_alike_and_without_work(password: str) -> None:
    house = open_house()
    await house.register("ada")
    house.blocking.runs = 0
    for email in ("ada@example.com", "eve@example.com"):
        await refused(house.auth.login(email, password), "INVALID_CREDENTIALS")
    assert house.blocking.runs == 0


async def test_a_deleted_account_reads_like_none() -> None:
    house = open_house()
    login = await house.register("ada")
    set_status(house, login, "deleted")
    house.blocking.runs = 0
    await refused(house.auth.login("ada@example.com", PASSWORD), "INVALID_CREDENTIALS")
    assert house.blocking.runs == 1
    await refused(house.auth.refresh(login.refresh_token), "UNAUTHORIZED")


async def test_that_an_account_is_banned_is_told_to_its_owner_only() -> None:
    house = open_house()
    login = await house.register("ada")
    set_status(house, login, "banned")
    await refused(house.auth.login("ada@example.com", "wrong password"), "INVALID_CREDENTIALS")
    with pytest.raises(Forbidden):
        await house.auth.login("ada@example.com", PASSWORD)
    with pytest.raises(Forbidden):
        await house.auth.refresh(login.refresh_token)


async def test_a_hash_with_old_parameters_is_renewed_at_the_next_login() -> None:
    house = open_house()
    login = await house.register("ada")
    stores = (house.users, house.sessions, house.revocation_rows)
    stronger = open_house(stores=stores, cost=Cost(passes=2, memory_kib=16), seed=2)
    await refused(stronger.auth.login("ada@example.com", "wrong password"), "INVALID_CREDENTIALS")
    assert "m=8,t=1" in house.users._users[login.user.id].password_hash
    await stronger.auth.login("ada@example.com", PASSWORD)
    assert "m=16,t=2" in house.users._users[login.user.id].password_hash
    stronger.blocking.runs = 0
    await stronger.auth.login("ada@example.com", PASSWORD)
    assert stronger.blocking.runs == 1


async def test_the_session_that_was_not_used_for_longest_makes_room() -> None:
    house = open_house(sessions_per_user_max=3)
    logins = [await house.register("ada")]
    for _ in range(2):
        house.clock.advance(1)
        logins.append(await house.auth.login("ada@example.com", PASSWORD))
    house.clock.advance(1)
    await house.auth.refresh(logins[0].refresh_token)
    house.clock.advance(1)
    await house.auth.login("ada@example.com", PASSWORD)
    assert house.ended == [(logins[1].session, "replaced")]
    no_entry(house, logins[1])
    await refused(house.auth.refresh(logins[1].refresh_token), "UNAUTHORIZED")
    assert house.lets_in(logins[0])
    assert house.lets_in(logins[2])
    assert len(await house.auth.sessions(logins[0].user.id)) == 3


async def test_an_expired_session_needs_no_room() -> None:
    house = open_house(sessions_per_user_max=1)
    await house.register("ada")
    house.clock.advance(31 * 86_400)
    await house.auth.login("ada@example.com", PASSWORD)
    assert house.ended == []


async def test_a_user_is_added_without_a_session_and_given_one() -> None:
    house = open_house()
    added = await house.auth.add_user(
        email="ada@example.com", username=None, display_name="Ada Lovelace", password=PASSWORD, role="admin"
    )
    assert added.username == "ada.lovelace"
    assert list(await house.auth.sessions(added.id)) == []
    login = await house.auth.issue_for("ada.lovelace")
    assert house.auth.verify(login.access_token).role == "admin"
    assert house.lets_in(await house.auth.refresh(login.refresh_token))


async def test_a_user_is_found_by_address_id_and_name() -> None:
    house = open_house()
    ada = (await house.register("ada")).user
    for who in ("Ada@example.com", ada.id, ada.id.upper(), "ada"):
        assert await house.auth.find(who) == ada
    for who in ("eve@example.com", "@", "00000000-0000-4000-8000-000000000000", "eve", ""):
        with pytest.raises(NotFound):
            await house.auth.find(who)


@pytest.mark.parametrize(("status", "refusal"), [("banned", Forbidden), ("deleted", NotFound)])
async def test_nobody_gets_a_token_for_an_account_that_ended(status: str, refusal: type[Exception]) -> None:
    house = open_house()
    set_status(house, await house.register("ada"), status)
    with pytest.raises(refusal):
        await house.auth.issue_for("ada")


async def test_a_profile_is_what_the_store_says_now() -> None:
    house = open_house()
    login = await house.register("ada")
    known: Credentials = house.users._users[login.user.id]
    promoted: User = replace(known.user, role="admin")
    house.users._users[login.user.id] = Credentials(promoted, known.password_hash)
    assert await house.auth.profile(login.user.id) == promoted


async def test_what_ended_long_ago_is_forgotten() -> None:
    house = open_house()
    login = await house.register("ada")
    await house.auth.logout(house.auth.verify(login.access_token))
    house.clock.advance(30 * 86_400)
    assert await house.auth.purge() == 0
    house.clock.advance(1300)
    assert await house.auth.purge() == 2
    assert await house.sessions.session(login.session) is None


def vars_of(session: LoginSession) -> list[object]:
    return [getattr(session, name) for name in LoginSession.__slots__]
