"""The set only grows by union, shrinks by time, and never lets a revoked token through."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from tests.features.auth.kit import START_US, FixedClock

from secureconnect.errors import BackendDown
from secureconnect.features.auth import revocations as module
from secureconnect.features.auth.model import Identity, Revocation
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.ids import SessionId, UserId

LIFE_US = 900_000_000
HOUR_S = 3600


def identity(session: str, *, expires_in_s: int = 900) -> Identity:
    return Identity(UserId("u"), SessionId(session), "ada", "ada@example.com", "user", START_US // 1_000_000 + expires_in_s)


def row(number: int, session: str | None = None, *, until_us: int = START_US + LIFE_US) -> Revocation:
    return Revocation(number, SessionId(session or f"s{number}"), UserId("u"), "logout", START_US, until_us)


class Rows:
    """A revocation store in which rows appear in any order of their numbers."""

    def __init__(self, *rows: Revocation) -> None:
        self.rows = list(rows)
        self.asked: list[int] = []
        self.down = False

    async def since(self, number: int, *, live_us: int, limit: int) -> Sequence[Revocation]:
        await trio.lowlevel.checkpoint()
        self.asked.append(number)
        if self.down:
            raise BackendDown("sql")
        found = sorted((r for r in self.rows if r.number > number and r.until_us > live_us), key=lambda r: r.number)
        return found[:limit]


async def follow(revocations: RevocationSet, rows: Rows) -> list[int]:
    news: list[int] = []
    await revocations.follow(rows, lambda one: news.append(one.number))
    return news


def test_a_session_is_refused_from_the_moment_it_is_added() -> None:
    revocations = RevocationSet(FixedClock())
    assert not revocations.refuses(identity("a"))
    assert revocations.add(SessionId("a"), UserId("u"), START_US + LIFE_US)
    assert revocations.refuses(identity("a"))
    assert not revocations.refuses(identity("b"))


def test_the_same_again_is_no_news_and_never_shortens() -> None:
    clock = FixedClock()
    revocations = RevocationSet(clock)
    revocations.add(SessionId("a"), UserId("u"), START_US + LIFE_US)
    assert not revocations.add(SessionId("a"), UserId("u"), START_US + 1)
    clock.advance(HOUR_S + 100)
    revocations.add(SessionId("b"), UserId("u"), START_US + 2 * LIFE_US)
    assert revocations.refuses(identity("a"))


def test_what_cannot_be_valid_any_more_is_forgotten() -> None:
    clock = FixedClock()
    revocations = RevocationSet(clock)
    for number in range(100):
        revocations.add(SessionId(str(number)), UserId("u"), clock.now_us() + LIFE_US)
        clock.advance(100)
    assert len(revocations) <= (900 + HOUR_S) / 100 + 1


def test_a_clock_that_jumps_back_an_hour_revives_nothing() -> None:
    clock = FixedClock()
    revocations = RevocationSet(clock)
    revocations.add(SessionId("a"), UserId("u"), clock.now_us() + LIFE_US)
    clock.advance(900 + HOUR_S - 1)
    revocations.add(SessionId("b"), UserId("u"), clock.now_us() + LIFE_US)
    clock.advance(-HOUR_S)  # now the token of "a" is within its life again
    assert revocations.refuses(identity("a"))


def test_when_the_set_is_full_old_tokens_must_be_refreshed_instead() -> None:
    clock = FixedClock()
    revocations = RevocationSet(clock, entries_max=2)
    for number, session in enumerate("abc"):
        revocations.add(SessionId(session), UserId("u"), START_US + LIFE_US + number * 1_000_000)
    assert len(revocations) == 2
    assert revocations.expires_early(identity("a", expires_in_s=900))  # dropped, and refused all the same
    assert not revocations.expires_early(identity("x", expires_in_s=901))
    assert revocations.refuses(identity("b"))
    assert revocations.refuses(identity("c"))


async def test_loading_brings_everything_in_force() -> None:
    revocations = RevocationSet(FixedClock())
    await revocations.load(Rows(*map(row, range(1, 8))))
    assert all(revocations.refuses(identity(f"s{number}")) for number in range(1, 8))


async def test_loading_fails_when_the_store_is_away() -> None:
    """A node that cannot know what was revoked must not serve."""
    rows = Rows(row(1))
    rows.down = True
    with pytest.raises(BackendDown):
        await RevocationSet(FixedClock()).load(rows)


async def test_following_tells_what_is_news_and_nothing_twice() -> None:
    revocations, rows = RevocationSet(FixedClock()), Rows(row(1), row(2))
    await revocations.load(rows)
    rows.rows += [row(3), row(4, "known")]
    revocations.add(SessionId("known"), UserId("u"), START_US + LIFE_US)
    assert await follow(revocations, rows) == [3]
    assert await follow(revocations, rows) == []


async def test_many_rows_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 3)
    rows = Rows(*map(row, range(1, 8)))
    assert await follow(RevocationSet(FixedClock()), rows) == list(range(1, 8))
    assert rows.asked == [0, 3, 6]


async def test_a_row_that_appears_below_a_later_one_is_not_missed() -> None:
    """Two nodes write at once: number 5 becomes visible after 6 was read, up to a store call's deadline later."""
    clock = FixedClock()
    revocations, rows = RevocationSet(clock), Rows()
    for _ in range(20):  # any phase of the cursor
        clock.advance(2)
        await follow(revocations, rows)
    for number in range(10, 40, 2):
        rows.rows.append(row(number + 1, until_us=clock.now_us() + LIFE_US))
        assert await follow(revocations, rows) == [number + 1]
        clock.advance(2)
        await follow(revocations, rows)
        clock.advance(3)
        rows.rows.append(row(number, until_us=clock.now_us() + LIFE_US))
        assert await follow(revocations, rows) == [number]


async def test_following_does_not_read_the_whole_list_for_ever() -> None:
    clock = FixedClock()
    revocations, rows = RevocationSet(clock), Rows(*map(row, range(1, 8)))
    await revocations.load(rows)
    for _ in range(11):
        clock.advance(2)
        await follow(revocations, rows)
    assert rows.asked[-1] == 7


async def test_a_clock_that_jumps_back_only_makes_it_read_more() -> None:
    clock = FixedClock()
    revocations, rows = RevocationSet(clock), Rows(row(1))
    await revocations.load(rows)
    clock.advance(-HOUR_S)
    rows.rows.append(row(2))
    assert await follow(revocations, rows) == [2]
    clock.advance(2)
    await follow(revocations, rows)
    assert rows.asked == [0, 0, 0]


async def test_an_outage_while_following_loses_nothing() -> None:
    revocations, rows = RevocationSet(FixedClock()), Rows(row(1))
    await revocations.load(rows)
    rows.down = True
    with pytest.raises(BackendDown):
        await follow(revocations, rows)
    assert revocations.refuses(identity("s1"))
    rows.down = False
    rows.rows.append(row(2))
    assert await follow(revocations, rows) == [2]


async def test_what_was_read_before_a_failure_is_in_force_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 1)
    revocations, rows = RevocationSet(FixedClock()), Rows(row(1), row(2))
    told: list[int] = []

    def tell(one: Revocation) -> None:
        told.append(one.number)
        rows.down = True

    with pytest.raises(BackendDown):
        await revocations.follow(rows, tell)
    assert told == [1]
    assert revocations.refuses(identity("s1"))
