"""What was decided alone comes home once, whatever happens on the way, and the receipt says what became of each."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from tests.fallback.kit import Home, Place, SetClock, place

from secureconnect.errors import BackendDown
from secureconnect.fallback import OutageLogFull
from secureconnect.fallback.sync import BATCH
from secureconnect.testing.faulty_disk import FaultyDisk

pytestmark = pytest.mark.anyio


async def started(disk: FaultyDisk, home: Home, clock: SetClock, *, bytes_max: int = 1 << 20) -> Place:
    here = place(disk, home, clock, bytes_max=bytes_max)
    await here.sync.load()
    return here


async def test_each_item_ends_in_the_category_that_its_rule_says() -> None:
    home, clock = Home(names={"known"}, heights={"low": 9}), SetClock()
    here = await started(FaultyDisk(), home, clock)
    for kind, key, data in (
        ("union", "new", b""),
        ("union", "known", b""),
        ("latest", "high", b"1"),
        ("latest", "high", b"3"),
        ("latest", "low", b"2"),
        ("drop", "limit", b""),
        ("refused", "wrong", b""),
    ):
        await here.sync.keep(kind, key, data)
    await here.sync.keep("union", "late", b"", expires_us=clock.us + 1)
    clock.us += 1
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {
        "applied": {"": 2},
        "superseded": {"known": 1, "newer here": 1, "higher there": 1},
        "dropped": {"no use": 1},
        "conflicted": {"CONFLICT": 1},
        "expired": {"": 1},
    }
    assert receipt.kept == 8
    assert home.names == {"known", "new"}
    assert home.heights == {"high": 3, "low": 9}
    assert here.sync.pending == []
    assert [*here.receipts.all] == [receipt]


async def test_a_second_outage_in_the_middle_leaves_the_rest_for_the_next_return() -> None:
    home = Home()
    here = await started(FaultyDisk(), home, SetClock())
    for number in range(5):
        await here.sync.keep("union", str(number), b"")
    home.away_after = 2
    with pytest.raises(BackendDown):
        await here.sync.replay()
    assert [item.key for item in here.sync.pending] == ["2", "3", "4"]
    await here.sync.keep("union", "5", b"")
    home.away_after = None
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"applied": {"": 6}}
    assert home.deeds == list("012345")


async def test_what_was_home_before_a_crash_is_not_brought_there_again() -> None:
    home, clock, disk = Home(), SetClock(), FaultyDisk()
    here = await started(disk, home, clock)
    for number in range(BATCH + 1):
        await here.sync.keep("union", str(number), b"")
    home.away_after = BATCH
    with pytest.raises(BackendDown):
        await here.sync.replay()
    home.away_after = None
    again = await started(disk.after_power_cut(), home, clock)
    assert [item.key for item in again.sync.pending] == [str(BATCH)]
    receipt = await again.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"applied": {"": BATCH + 1}}
    assert len(home.deeds) == BATCH + 1


async def test_a_crash_between_receipt_and_forgetting_makes_no_second_receipt() -> None:
    home, clock, disk = Home(), SetClock(), FaultyDisk()
    here = await started(disk, home, clock)
    await here.sync.keep("union", "a", b"")
    outage = disk.files["home.outage"]
    here.sync.went_away()  # known to memory only: the identity of the receipt must not hang on it
    await here.sync.replay()
    (first,) = here.receipts.all
    disk.files["home.outage"] = outage
    again = await started(disk.after_power_cut(), home, clock)
    await again.sync.replay()
    (second,) = again.receipts.all
    assert (second.id, second.kept) == (first.id, first.kept)


async def test_an_outage_in_which_nothing_was_kept_has_a_receipt_too() -> None:
    clock = SetClock()
    here = await started(FaultyDisk(), Home(), clock)
    assert await here.sync.replay() is None
    here.sync.went_away()
    clock.us += 5_000_000
    here.sync.went_away()
    clock.us += 5_000_000
    receipt = await here.sync.replay()
    assert receipt is not None
    assert (receipt.kept, receipt.ended_us - receipt.began_us) == (0, 10_000_000)
    assert await here.sync.replay() is None


async def test_what_comes_while_the_receipt_is_stored_belongs_to_the_next() -> None:
    home = Home()
    disk = FaultyDisk()
    here = await started(disk, home, SetClock())
    await here.sync.keep("union", "a", b"")
    replace = disk.replace

    async def slow(name: str, data: bytes) -> None:
        if name == "receipts.json":
            await here.sync.keep("union", "b", b"")
        await replace(name, data)

    disk.replace = slow  # type: ignore[method-assign]  # a write that takes its time
    await here.sync.replay()
    disk.replace = replace  # type: ignore[method-assign]
    assert [item.key for item in here.sync.pending] == ["b"]
    await here.sync.replay()
    assert [receipt.kept for receipt in here.receipts.all] == [1, 1]
    assert home.deeds == ["a", "b"]


async def test_a_full_log_refuses_and_keeps_what_it_has() -> None:
    home = Home()
    here = await started(FaultyDisk(), home, SetClock(), bytes_max=300)
    await here.sync.keep("union", "a", bytes(100))
    with pytest.raises(OutageLogFull) as caught:
        await here.sync.keep("union", "b", bytes(200))
    assert caught.value.word == "JOURNAL_FULL"
    await here.sync.replay()
    await here.sync.keep("union", "b", bytes(200))
    await here.sync.replay()
    assert home.deeds == ["a", "b"]


async def test_a_disk_that_fails_refuses_and_the_next_item_is_whole() -> None:
    home, disk, clock = Home(), FaultyDisk(), SetClock()
    here = await started(disk, home, clock)
    await here.sync.keep("union", "a", b"")
    disk.fails = True
    with pytest.raises(BackendDown):
        await here.sync.keep("union", "lost", b"")
    with pytest.raises(BackendDown):
        await here.sync.replay()
    disk.fails = False
    await here.sync.keep("union", "b", b"")
    again = await started(disk.after_power_cut(), home, clock)
    assert [item.key for item in again.sync.pending] == ["a", "b"]
    receipt = await again.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"applied": {"": 1}, "superseded": {"known": 1}}  # "a" was home and could not be marked


async def test_many_callers_at_once_are_all_kept() -> None:
    home, disk, clock = Home(), FaultyDisk(), SetClock()
    here = await started(disk, home, clock)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(here.sync.keep, "union", str(number), b"")
    again = await started(disk.after_power_cut(), home, clock)
    assert sorted(item.key for item in again.sync.pending) == sorted(map(str, range(20)))


async def test_a_cancelled_caller_does_not_tear_the_next_ones_item() -> None:
    """Its write goes on aside; the next one goes to the same place, behind it in time."""
    home, disk, clock = Home(), FaultyDisk(), SetClock()
    here = await started(disk, home, clock)
    with anyio.CancelScope() as scope:
        write = disk.write

        async def abandoned(name: str, data: bytes, *, at: int) -> None:
            await write(name, data, at=at)
            scope.cancel()
            await anyio.lowlevel.checkpoint()

        disk.write = abandoned  # type: ignore[method-assign]  # done, and its caller gone
        await here.sync.keep("union", "longer than the next one", b"")
    disk.write = write  # type: ignore[method-assign]
    await here.sync.keep("union", "b", b"")
    again = await started(disk.after_power_cut(), home, clock)
    assert [item.key for item in again.sync.pending] == ["b"]


async def test_a_kind_that_no_rule_knows_any_more_is_dropped_aloud() -> None:
    home, clock = Home(), SetClock()
    here = await started(FaultyDisk(), home, clock)
    await here.log.keep("of old", "a", b"", at_us=clock.us)
    receipt = await here.sync.replay()
    assert receipt is not None
    assert receipt.counts == {"dropped": {"no rule for of old": 1}}


async def test_run_waits_for_the_home_and_brings_back_what_a_single_refusal_left() -> None:
    home = Home()
    here = await started(FaultyDisk(), home, SetClock())
    is_away, looks = True, anyio.Event()

    def look() -> bool:
        looks.set()
        return is_away

    await here.sync.keep("union", "a", b"")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(here.sync.run, look)
            await looks.wait()
            assert home.deeds == []
            is_away = False
            await home.reached.wait()
            home.reached = anyio.Event()
            await here.sync.keep("union", "b", b"")  # no outage was told of
            await home.reached.wait()
            tasks.cancel_scope.cancel()
    assert home.deeds == ["a", "b"]
