"""The file of what is kept: whole after any crash, and cut where it is torn."""

from __future__ import annotations

import pytest

from secureconnect.errors import BackendDown
from secureconnect.fallback import OutageLog, Outcome
from secureconnect.fallback.outage_log import _framed
from secureconnect.fallback.receipt import Receipt
from secureconnect.testing.faulty_disk import FaultyDisk

pytestmark = pytest.mark.anyio


async def log_on(disk: FaultyDisk) -> OutageLog:
    log = OutageLog(disk, "log")
    await log.load()
    return log


def keys(log: OutageLog) -> list[str]:
    return [item.key for item in log.pending]


async def test_what_is_kept_is_there_after_a_restart_in_its_order_and_with_all_it_says() -> None:
    disk = FaultyDisk()
    log = await log_on(disk)
    first = await log.keep("k", "a", b"\x00\xff", at_us=7, expires_us=9)
    second = await log.keep("k", "b", b"", at_us=8)
    again = await log_on(disk.after_power_cut())
    assert again.pending == [first, second]
    assert again.began is not None
    assert again.began.at_us == 7
    assert (await again.keep("k", "c", b"", at_us=9)).number == 3


async def test_a_file_torn_at_any_byte_keeps_every_whole_item_and_takes_the_next() -> None:
    disk = FaultyDisk()
    log = await log_on(disk)
    ends = [0]
    for key in ("a", "b", "c"):
        await log.keep("k", key, b"data", at_us=1)
        ends.append(len(disk.files["log"]))
    whole = disk.files["log"]
    for cut in range(len(whole) + 1):
        torn = FaultyDisk({"log": whole[:cut]})
        reopened = await log_on(torn)
        survivors = ["a", "b", "c"][: sum(end <= cut for end in ends[1:])]
        assert keys(reopened) == survivors, cut
        await reopened.keep("k", "next", b"", at_us=2)
        assert keys(await log_on(torn)) == [*survivors, "next"], cut


async def test_any_changed_byte_is_noticed() -> None:
    disk = FaultyDisk()
    log = await log_on(disk)
    await log.keep("k", "a", b"data", at_us=1)
    whole = disk.files["log"]
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert keys(await log_on(FaultyDisk({"log": damaged}))) == [], at


async def test_zeros_behind_the_end_are_no_records() -> None:
    disk = FaultyDisk()
    log = await log_on(disk)
    await log.keep("k", "a", b"", at_us=1)
    disk.files["log"] += bytes(4096)
    again = await log_on(disk)
    assert keys(again) == ["a"]
    await again.keep("k", "b", b"", at_us=1)
    assert keys(await log_on(disk)) == ["a", "b"]


async def test_a_whole_record_of_another_version_stops_the_start_and_is_not_cut_off() -> None:
    strange = _framed(Receipt("r", "sql", 1, 2, {}))  # type: ignore[arg-type]  # a struct that is none of this file's
    disk = FaultyDisk({"log": strange})
    with pytest.raises(BackendDown):
        await log_on(disk)
    assert disk.files["log"] == strange


async def test_what_is_done_and_counted_leaves_the_file() -> None:
    disk = FaultyDisk()
    log = await log_on(disk)
    one = await log.keep("k", "a", b"", at_us=1)
    await log.keep("k", "b", b"", at_us=2)
    await log.done({one.number: Outcome("applied", "x")})
    assert (await log_on(disk)).outcomes == {1: Outcome("applied", "x")}
    await log.forget_done()
    again = await log_on(disk)
    assert (keys(again), again.outcomes) == (["b"], {})
    two = again.pending[0]
    await again.done({two.number: Outcome("applied")})
    await again.forget_done()
    assert disk.files["log"] == b""
    assert again.began is None
