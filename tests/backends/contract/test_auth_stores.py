"""Accounts, login sessions, revocations: what every implementation of the three protocols must do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import trio
from tests.features.auth.kit import START_US, session, user

from secureconnect.backends.memory.auth import MemoryRevocations, MemorySessions, MemoryUsers
from secureconnect.backends.sql.auth import SqlRevocations, SqlSessions, SqlUsers
from secureconnect.backends.sql.engine import Engine
from secureconnect.features.auth.model import Credentials, Device, Ending, EndReason, Exchange, LoginSession, Rotation
from secureconnect.features.auth.store import EmailTaken, RevocationStore, SessionStore, UsernameTaken, UserStore
from secureconnect.ids import SessionId, UserId

SECOND_US = 1_000_000
NOBODY = UserId("nobody")
ADA, BOB = user(1), user(2)


@dataclass
class Stores:
    users: UserStore
    sessions: SessionStore
    revocations: RevocationStore


@pytest.fixture
def stores(engine: Engine | None) -> Stores:
    if engine is not None:
        return Stores(SqlUsers(engine), SqlSessions(engine), SqlRevocations(engine))
    revocations = MemoryRevocations()
    sessions = MemorySessions(revocations)
    return Stores(MemoryUsers(sessions), sessions, revocations)


def ending(reason: EndReason = "logout", *, at_us: int = START_US, life_us: int = 900 * SECOND_US) -> Ending:
    return Ending(reason, at_us=at_us, until_us=at_us + life_us)


def exchange(presented: bytes, replacement: bytes, *, at_us: int = START_US) -> Exchange:
    return Exchange(
        presented=presented,
        replacement=replacement,
        at_us=at_us,
        expires_us=at_us + 3600 * SECOND_US,
        repeat_after_us=at_us - 60 * SECOND_US,
        reuse=ending("reuse", at_us=at_us),
    )


async def begin(stores: Stores, *sessions: LoginSession, keep: int = 100) -> list[SessionId]:
    ended: list[SessionId] = []
    for one in sessions:
        ended += await stores.sessions.begin(one, keep=keep, surplus=ending("replaced", at_us=one.created_us))
    return ended


async def revoked(stores: Stores, *, live_us: int = START_US) -> list[tuple[SessionId, str]]:
    rows = await stores.revocations.since(0, live_us=live_us, limit=1000)
    assert [row.number for row in rows] == sorted(row.number for row in rows)
    return [(row.session, row.reason) for row in rows]


async def living(stores: Stores, owner: UserId = ADA.id, *, now_us: int = START_US) -> list[SessionId]:
    return [one.id for one in await stores.sessions.sessions_of(owner, now_us=now_us)]


async def test_a_user_reads_back_as_added(stores: Stores) -> None:
    ada = replace(ADA, avatar_url="https://example.com/a.png", role="admin", status="away", display_name="Ada 👩‍💻 \"'%")
    await stores.users.add(ada, "hash")
    await stores.users.add(BOB, "hash of bob")
    assert await stores.users.user(ada.id) == ada
    assert await stores.users.by_username(ada.username) == ada
    assert await stores.users.credentials(ada.email) == Credentials(ada, "hash")
    assert await stores.users.user(BOB.id) == BOB


async def test_who_does_not_exist_is_none(stores: Stores) -> None:
    await stores.users.add(ADA, "hash")
    assert await stores.users.user(NOBODY) is None
    assert await stores.users.by_username("nobody") is None
    assert await stores.users.credentials("nobody@example.com") is None
    assert await stores.users.credentials("") is None


async def test_an_email_is_stored_once(stores: Stores) -> None:
    await stores.users.add(ADA, "hash")
    with pytest.raises(EmailTaken):
        await stores.users.add(replace(BOB, email=ADA.email), "other", session(1, BOB))
    assert await stores.users.user(BOB.id) is None
    assert await living(stores, BOB.id) == []
    assert await stores.users.credentials(ADA.email) == Credentials(ADA, "hash")


async def test_a_username_is_stored_once(stores: Stores) -> None:
    await stores.users.add(ADA, "hash")
    with pytest.raises(UsernameTaken):
        await stores.users.add(replace(BOB, username=ADA.username), "other", session(1, BOB))
    assert await stores.users.credentials(BOB.email) is None
    assert await living(stores, BOB.id) == []


async def test_when_both_are_taken_the_email_is_named(stores: Stores) -> None:
    await stores.users.add(ADA, "hash")
    await stores.users.add(BOB, "hash")
    with pytest.raises(EmailTaken):
        await stores.users.add(user(3, email=ADA.email, username=BOB.username), "other")


async def test_of_many_at_once_one_is_stored(stores: Stores) -> None:
    outcomes: list[str] = []

    async def add(number: int) -> None:
        try:
            await stores.users.add(user(number, email="one@example.com"), "hash", session(number, user(number)))
            outcomes.append(f"user{number}")
        except EmailTaken:
            outcomes.append("taken")

    async with trio.open_nursery() as nursery:
        for number in range(1, 9):
            nursery.start_soon(add, number)
    stored = await stores.users.credentials("one@example.com")
    assert stored is not None
    assert sorted(outcomes) == ["taken"] * 7 + [stored.user.username]
    assert [len(await living(stores, user(number).id)) for number in range(1, 9)].count(1) == 1


async def test_a_registration_brings_its_session(stores: Stores) -> None:
    await stores.users.add(ADA, "hash", session(1, ADA))
    assert await living(stores) == [session(1, ADA).id]


async def test_a_password_hash_is_replaced_only_if_it_is_still_the_one_that_was_read(stores: Stores) -> None:
    await stores.users.add(ADA, "old")
    assert not await stores.users.replace_password_hash(ADA.id, "older", "new")
    assert not await stores.users.replace_password_hash(NOBODY, "old", "new")
    assert await stores.users.credentials(ADA.email) == Credentials(ADA, "old")
    assert await stores.users.replace_password_hash(ADA.id, "old", "new")
    assert await stores.users.credentials(ADA.email) == Credentials(ADA, "new")


async def test_a_session_reads_back_as_begun(stores: Stores) -> None:
    one = replace(session(1, ADA), device=Device("phone", "curl/8", "::1"), refresh_hash=bytes(range(32)))
    await begin(stores, one, session(2, ADA))
    assert await stores.sessions.session(one.id) == one
    assert await stores.sessions.session(session(2, ADA).id) == session(2, ADA)
    assert await stores.sessions.session(SessionId("unknown")) is None


async def test_sessions_are_listed_by_last_use_and_only_while_they_live(stores: Stores) -> None:
    sessions = [session(number, ADA, at_us=START_US + number) for number in range(4)]
    await begin(stores, *sessions, session(9, BOB))
    await stores.sessions.rotate(sessions[1].id, exchange(b"hash 1", b"new", at_us=START_US + 10))
    await stores.sessions.end(sessions[2].id, ADA.id, ending())
    order = [sessions[number].id for number in (1, 3, 0)]
    assert await living(stores) == order
    assert await living(stores, now_us=sessions[3].expires_us - 1) == order[:2]
    assert await living(stores, now_us=sessions[3].expires_us) == order[:1]


async def test_beginning_ends_what_is_over_the_limit(stores: Stores) -> None:
    sessions = [session(number, ADA, at_us=START_US + number) for number in range(5)]
    other = session(9, BOB, at_us=START_US - 1)
    assert await begin(stores, other, *sessions[:3], keep=3) == []
    assert await begin(stores, sessions[3], keep=3) == [sessions[0].id]
    assert await begin(stores, sessions[4], keep=1) == [sessions[1].id, sessions[2].id, sessions[3].id]
    assert await living(stores) == [sessions[4].id]
    assert await living(stores, BOB.id) == [other.id]
    assert await revoked(stores) == [(sessions[number].id, "replaced") for number in range(4)]
    ended = await stores.sessions.session(sessions[0].id)
    assert ended is not None
    assert (ended.ended_us, ended.end_reason) == (sessions[3].created_us, "replaced")


async def test_expired_and_ended_sessions_do_not_count(stores: Stores) -> None:
    expired, ended = session(1, ADA, life_us=1), session(2, ADA)
    await begin(stores, expired, ended)
    await stores.sessions.end(ended.id, ADA.id, ending())
    assert await begin(stores, session(3, ADA, at_us=START_US + 1), keep=1) == []
    assert await revoked(stores) == [(ended.id, "logout")]


async def test_many_logins_at_once_stay_within_the_limit(stores: Stores) -> None:
    async def login(number: int) -> None:
        await begin(stores, session(number, ADA, at_us=START_US + number), keep=3)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(login, number)
    assert len(await living(stores)) == 3
    assert len(await revoked(stores)) == 5


async def test_rotation_replaces_the_hash_and_prolongs_the_session(stores: Stores) -> None:
    one = session(1, ADA)
    await begin(stores, one)
    later_us = START_US + SECOND_US
    assert await stores.sessions.rotate(one.id, exchange(b"hash 1", b"second", at_us=later_us)) == Rotation("rotated", later_us)
    assert await stores.sessions.session(one.id) == replace(
        one,
        refresh_hash=b"second",
        previous_hash=b"hash 1",
        rotated_us=later_us,
        last_used_us=later_us,
        expires_us=later_us + 3600 * SECOND_US,
    )
    assert await revoked(stores) == []


async def test_the_same_rotation_again_is_a_repetition_for_a_minute(stores: Stores) -> None:
    one = session(1, ADA)
    await begin(stores, one)
    await stores.sessions.rotate(one.id, exchange(b"hash 1", b"second"))
    before = await stores.sessions.session(one.id)
    again = exchange(b"hash 1", b"second", at_us=START_US + 60 * SECOND_US - 1)
    assert await stores.sessions.rotate(one.id, again) == Rotation("repeated", START_US)
    assert await stores.sessions.session(one.id) == before
    late = exchange(b"hash 1", b"second", at_us=START_US + 60 * SECOND_US)
    assert (await stores.sessions.rotate(one.id, late)).outcome == "reused"


@pytest.mark.parametrize(("presented", "replacement"), [
    (b"hash 1", b"other"),  # an old token, and another answer than the one that was given
    (b"hash 0", b"second"),  # a token from before the last two
    (b"hash 0", b"other"),
])  # fmt: skip
async def test_an_old_token_ends_the_session_and_revokes_it_in_one_step(
    stores: Stores, presented: bytes, replacement: bytes
) -> None:
    one = session(1, ADA)
    await begin(stores, one, session(2, ADA))
    await stores.sessions.rotate(one.id, exchange(b"hash 1", b"second"))
    outcome = (await stores.sessions.rotate(one.id, exchange(presented, replacement))).outcome
    assert outcome == "reused"
    assert await revoked(stores) == [(one.id, "reuse")]
    ended = await stores.sessions.session(one.id)
    assert ended is not None
    assert (ended.ended_us, ended.end_reason) == (START_US, "reuse")
    assert await living(stores) == [session(2, ADA).id]
    for token in (b"second", b"hash 1"):
        assert await stores.sessions.rotate(one.id, exchange(token, b"third")) == Rotation("gone")
    assert len(await revoked(stores)) == 1


async def test_a_session_that_is_over_cannot_be_rotated(stores: Stores) -> None:
    ended, expired = session(1, ADA), session(2, ADA, life_us=10)
    await begin(stores, ended, expired)
    await stores.sessions.end(ended.id, ADA.id, ending())
    assert await stores.sessions.rotate(ended.id, exchange(b"hash 1", b"new")) == Rotation("gone")
    assert await stores.sessions.rotate(expired.id, exchange(b"hash 2", b"new", at_us=START_US + 10)) == Rotation("gone")
    assert await stores.sessions.rotate(expired.id, exchange(b"hash 7", b"new", at_us=START_US + 10)) == Rotation("gone")
    assert await stores.sessions.rotate(SessionId("unknown"), exchange(b"hash 1", b"new")) == Rotation("gone")
    assert await revoked(stores) == [(ended.id, "logout")]


async def test_of_many_rotations_at_once_one_wins(stores: Stores) -> None:
    one = session(1, ADA)
    await begin(stores, one)
    outcomes: list[str] = []

    async def rotate(number: int) -> None:
        outcomes.append((await stores.sessions.rotate(one.id, exchange(b"hash 1", b"new %d" % number))).outcome)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(rotate, number)
    assert sorted(outcomes) == ["gone"] * 6 + ["reused", "rotated"]


async def test_of_many_equal_rotations_at_once_all_succeed(stores: Stores) -> None:
    one = session(1, ADA)
    await begin(stores, one)
    outcomes: list[str] = []

    async def rotate() -> None:
        outcomes.append((await stores.sessions.rotate(one.id, exchange(b"hash 1", b"new"))).outcome)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(rotate)
    assert sorted(outcomes) == ["repeated"] * 7 + ["rotated"]


async def test_only_its_user_ends_a_session_and_only_once(stores: Stores) -> None:
    one = session(1, ADA)
    await begin(stores, one)
    assert not await stores.sessions.end(one.id, BOB.id, ending())
    assert not await stores.sessions.end(SessionId("unknown"), ADA.id, ending())
    assert await revoked(stores) == []
    assert await stores.sessions.end(one.id, ADA.id, ending(at_us=START_US + 5))
    assert not await stores.sessions.end(one.id, ADA.id, ending("banned", at_us=START_US + 6))
    assert await stores.sessions.session(one.id) == replace(one, ended_us=START_US + 5, end_reason="logout")
    assert await revoked(stores) == [(one.id, "logout")]


async def test_an_expired_session_has_ended_already(stores: Stores) -> None:
    one = session(1, ADA, life_us=10)
    await begin(stores, one)
    assert not await stores.sessions.end(one.id, ADA.id, ending(at_us=START_US + 10))
    assert await revoked(stores) == []


async def test_revocations_are_read_from_a_number_in_pages_while_they_matter(stores: Stores) -> None:
    sessions = [session(number, ADA) for number in range(5)]
    await begin(stores, *sessions)
    for number, one in enumerate(sessions):
        await stores.sessions.end(one.id, ADA.id, ending(life_us=number + 1))
    everything = await stores.revocations.since(0, live_us=START_US, limit=100)
    assert [row.session for row in everything] == [one.id for one in sessions]
    assert all((row.user, row.reason, row.at_us) == (ADA.id, "logout", START_US) for row in everything)
    page = await stores.revocations.since(0, live_us=START_US, limit=2)
    assert list(page) == list(everything[:2])
    assert list(await stores.revocations.since(page[-1].number, live_us=START_US, limit=100)) == list(everything[2:])
    assert list(await stores.revocations.since(0, live_us=START_US + 3, limit=100)) == list(everything[3:])
    assert list(await stores.revocations.since(everything[-1].number, live_us=START_US, limit=100)) == []


async def test_purging_forgets_only_what_is_long_over(stores: Stores) -> None:
    living_on, ended, expired = session(1, ADA), session(2, ADA), session(3, ADA, life_us=10)
    await begin(stores, living_on, ended, expired)
    await stores.sessions.end(ended.id, ADA.id, ending(life_us=20))
    assert await stores.sessions.purge(START_US, limit=100) == 0
    assert await stores.sessions.purge(START_US + 11, limit=1) == 1
    assert await stores.sessions.purge(START_US + 11, limit=100) == 1
    assert await revoked(stores) == [(ended.id, "logout")]
    assert await stores.sessions.purge(START_US + 21, limit=100) == 1
    assert await revoked(stores) == []
    assert await living(stores) == [living_on.id]
    assert await stores.sessions.session(ended.id) is await stores.sessions.session(expired.id) is None


async def test_numbers_of_forgotten_revocations_are_not_given_again(stores: Stores) -> None:
    """Who follows by number would not see the second one."""
    await begin(stores, session(1, ADA), session(2, ADA))
    await stores.sessions.end(session(1, ADA).id, ADA.id, ending(life_us=1))
    seen = (await stores.revocations.since(0, live_us=START_US, limit=1))[0].number
    await stores.sessions.purge(START_US + 100, limit=100)
    await stores.sessions.end(session(2, ADA).id, ADA.id, ending())
    assert [row.session for row in await stores.revocations.since(seen, live_us=START_US, limit=1)] == [session(2, ADA).id]
