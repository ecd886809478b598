"""Hashing aside from the loop, and the same work for who exists and who does not."""

from __future__ import annotations

import argon2
import argon2.exceptions
import pytest
import trio
from tests.features.auth.kit import CHEAP, InlineBlocking, SeededRng
from trio.testing import wait_all_tasks_blocked

from secureconnect.errors import Overloaded
from secureconnect.features.auth.passwords import Cost, Passwords
from secureconnect.observe import stage


def passwords(blocking: InlineBlocking | None = None, *, cost: Cost = CHEAP, waiting_max: int = 64) -> Passwords:
    return Passwords(blocking or InlineBlocking(), SeededRng(), cost=cost, waiting_max=waiting_max)


async def test_a_password_matches_its_hash_and_no_other() -> None:
    checks = passwords()
    known = await checks.hash("correct horse")
    assert known.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert "correct" not in known
    assert await checks.matches("correct horse", known)
    assert not await checks.matches("correct hors", known)


async def test_the_same_password_is_never_hashed_to_the_same_text() -> None:
    checks = passwords()
    assert await checks.hash("correct horse") != await checks.hash("correct horse")


async def test_nobody_costs_one_check_like_everybody() -> None:
    blocking = InlineBlocking()
    checks = passwords(blocking)
    known = await checks.hash("correct horse")
    for against in (known, None):
        blocking.runs = 0
        await checks.matches("correct horse", against)
        assert blocking.runs == 1
    assert not await checks.matches("correct horse", None)


async def test_nobody_has_a_password_even_if_the_decoy_had_one() -> None:
    checks = passwords()
    checks._nobody = await checks.hash("correct horse")
    assert not await checks.matches("correct horse", None)


async def test_nobody_is_checked_with_the_parameters_of_real_hashes() -> None:
    """Else the time would tell: the decoy is a hash that asks for the same passes and memory."""
    checks = passwords(cost=Cost(passes=2, memory_kib=16))
    assert not checks.is_outdated(checks._nobody)
    assert checks._nobody.rsplit("$", 2)[0] == (await checks.hash("x")).rsplit("$", 2)[0]


async def test_a_hash_made_with_other_parameters_is_outdated() -> None:
    known = await passwords().hash("correct horse")
    assert not passwords().is_outdated(known)
    stronger = passwords(cost=Cost(passes=2, memory_kib=8))
    assert stronger.is_outdated(known)
    assert await stronger.matches("correct horse", known)


async def test_the_stage_is_named_for_deadlines() -> None:
    trail = stage.begin("handler")
    await passwords().hash("correct horse")
    assert trail.stage == "hash"


async def test_too_many_checks_are_refused_and_leave_no_trace() -> None:
    blocking = InlineBlocking()
    blocking.gate = trio.Event()
    checks = passwords(blocking, waiting_max=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checks.hash, "one")
        nursery.start_soon(checks.hash, "two")
        await wait_all_tasks_blocked()
        with trio.fail_after(5), pytest.raises(Overloaded):
            await checks.hash("three")
        blocking.gate.set()
    assert await checks.hash("three")


async def test_a_cancelled_check_frees_its_place() -> None:
    blocking = InlineBlocking()
    blocking.gate = trio.Event()
    checks = passwords(blocking, waiting_max=1)
    with trio.move_on_after(0) as scope:
        await checks.hash("one")
    assert scope.cancelled_caught
    blocking.gate.set()
    assert await checks.hash("two")


async def test_a_damaged_hash_is_no_wrong_password() -> None:
    """A row that holds no hash is a fault to be seen, not a login to be refused for ever."""
    with pytest.raises(argon2.exceptions.InvalidHashError):
        await passwords().matches("correct horse", "plain text")


async def test_want_of_memory_is_overload_and_not_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = passwords()

    def no_memory(hasher: argon2.PasswordHasher, known: str, password: str) -> bool:
        raise argon2.exceptions.VerificationError("Memory allocation error")

    monkeypatch.setattr(argon2.PasswordHasher, "verify", no_memory)
    with pytest.raises(Overloaded):
        await checks.matches("correct horse", None)
