"""What a node knew when it ended: the beginning of one that starts while the store is away."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs
from tests.features.auth.kit import FixedClock, InlineBlocking
from tests.features.auth.test_revocations import HOUR_S, LIFE_US, Rows, identity, row

from secureconnect.features.auth.last_known import FILE, LastKnown
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.ids import SessionId, UserId
from secureconnect.testing.faulty_disk import FaultyDisk

LIFE_S = LIFE_US // 1_000_000


def opened(disk: FaultyDisk, clock: FixedClock) -> tuple[RevocationSet, LastKnown]:
    revocations = RevocationSet(clock, entries_max=3)
    return revocations, LastKnown(revocations, disk, InlineBlocking(), clock=clock)


async def saved(clock: FixedClock) -> FaultyDisk:
    """A node has read the store, heard of one more, and ended."""
    disk = FaultyDisk()
    revocations, last_known = opened(disk, clock)
    await revocations.load(Rows(row(1)))
    revocations.add(SessionId("heard"), UserId("u"), clock.now_us() + LIFE_US)
    await last_known.save()
    return disk


async def test_what_was_known_is_in_force_at_the_next_start() -> None:
    clock = FixedClock()
    disk = await saved(clock)
    clock.advance(LIFE_S)
    revocations, last_known = opened(disk, clock)
    assert await last_known.load(life_us=LIFE_US)
    assert revocations.refuses(identity("s1"))
    assert revocations.refuses(identity("heard"))
    assert not revocations.refuses(identity("s2"))
    assert not revocations.expires_early(identity("s2", expires_in_s=1))


@pytest.mark.parametrize("off_s", [LIFE_S + 1, -1])
async def test_a_set_older_than_a_token_lives_or_of_the_future_lets_only_tokens_in_that_are_newer_than_the_start(
    off_s: int,
) -> None:
    clock = FixedClock()
    disk = await saved(clock)
    clock.advance(off_s)
    revocations, last_known = opened(disk, clock)
    assert await last_known.load(life_us=LIFE_US)
    assert revocations.expires_early(identity("s2", expires_in_s=LIFE_S + off_s))
    assert not revocations.expires_early(identity("s2", expires_in_s=LIFE_S + off_s + 1))
    await revocations.load(Rows(row(1)))
    assert not revocations.expires_early(identity("s2", expires_in_s=LIFE_S + off_s))
    assert revocations.refuses(identity("heard"))


async def test_a_node_that_waits_for_the_store_does_not_overwrite_what_was_known() -> None:
    clock = FixedClock()
    disk = await saved(clock)
    before = dict(disk.files)
    waiting, last_known = opened(disk, clock)
    waiting.add(SessionId("heard while waiting"), UserId("u"), clock.now_us() + LIFE_US)
    await last_known.save()
    assert disk.files == before
    await last_known.load(life_us=LIFE_US)
    await last_known.save()
    again, reloaded = opened(disk, clock)
    await reloaded.load(life_us=LIFE_US)
    assert all(again.refuses(identity(session)) for session in ("s1", "heard", "heard while waiting"))


async def test_what_a_full_set_refuses_instead_is_refused_after_the_start_too() -> None:
    clock, disk = FixedClock(), FaultyDisk()
    revocations, last_known = opened(disk, clock)
    await revocations.load(Rows())
    for number in range(4):
        revocations.add(SessionId(f"s{number}"), UserId("u"), clock.now_us() + LIFE_US)
    await last_known.save()
    again, loaded = opened(disk, clock)
    await loaded.load(life_us=LIFE_US)
    assert again.expires_early(identity("s0", expires_in_s=LIFE_S))


@pytest.mark.parametrize("data", [None, b"", b"\xc1", b"\x80"])
async def test_nothing_or_nonsense_on_the_disk_is_no_knowledge(data: bytes | None) -> None:
    clock, disk = FixedClock(), FaultyDisk()
    if data is not None:
        disk.files[FILE] = data
    _, last_known = opened(disk, clock)
    with capture_logs():
        assert not await last_known.load(life_us=LIFE_US)


async def test_it_is_written_when_something_changed_and_once_a_minute() -> None:
    clock, disk = FixedClock(), FaultyDisk()
    revocations, last_known = opened(disk, clock)
    await revocations.load(Rows())
    await last_known.save()
    disk.files.clear()
    clock.advance(59)
    await last_known.save()
    assert disk.files == {}
    revocations.add(SessionId("a"), UserId("u"), clock.now_us() + LIFE_US)
    await last_known.save()
    assert disk.files
    disk.files.clear()
    revocations.add(SessionId("a"), UserId("u"), clock.now_us() + LIFE_US)
    await last_known.save()
    assert disk.files == {}
    clock.advance(60)
    await last_known.save()
    assert disk.files
    disk.files.clear()
    clock.advance(-HOUR_S)  # the clock was wrong then or is now: write
    await last_known.save()
    assert disk.files


async def test_a_disk_that_fails_is_told_of_once_and_tried_again() -> None:
    clock, disk = FixedClock(), FaultyDisk()
    revocations, last_known = opened(disk, clock)
    await revocations.load(Rows())
    disk.fails = True
    with capture_logs() as logs:
        await last_known.save()
        await last_known.save()
    assert [line["event"] for line in logs] == ["last_known_revocations_not_saved"]
    disk.fails = False
    await last_known.save()
    assert FILE in disk.files
