"""Receipts are stored, bounded, and shown with the newest first."""

from __future__ import annotations

import pytest

from secureconnect.errors import BackendDown
from secureconnect.fallback import Receipt, Receipts
from secureconnect.fallback.receipt import RECEIPTS_MAX, SHOWN_MAX
from secureconnect.testing.faulty_disk import FaultyDisk

pytestmark = pytest.mark.anyio


def receipt(number: int) -> Receipt:
    return Receipt(f"sql-{number}", "sql", number, number + 1_000_000, {"applied": {"": number}, "dropped": {"old": 1}})


async def test_the_last_ones_survive_a_restart_and_the_oldest_go() -> None:
    disk = FaultyDisk()
    receipts = Receipts(disk)
    for number in range(RECEIPTS_MAX + 3):
        await receipts.add(receipt(number))
    again = Receipts(disk)
    await again.load()
    assert [one.began_us for one in again.all] == list(range(3, RECEIPTS_MAX + 3))
    assert [shown["id"] for shown in again.show()] == [f"sql-{RECEIPTS_MAX + 2 - back}" for back in range(SHOWN_MAX)]


async def test_a_receipt_shows_each_category_and_its_causes() -> None:
    receipts = Receipts(FaultyDisk())
    await receipts.add(receipt(2))
    assert receipts.show() == [
        {
            "id": "sql-2",
            "dependency": "sql",
            "began": "1970-01-01T00:00:00.000Z",
            "ended": "1970-01-01T00:00:01.000Z",
            "kept": 3,
            "applied": 2,
            "superseded": 0,
            "conflicted": 0,
            "expired": 0,
            "dropped": 1,
            "causes": {"applied": {"": 2}, "dropped": {"old": 1}},
        }
    ]


async def test_a_receipt_that_cannot_be_stored_is_none() -> None:
    disk = FaultyDisk()
    receipts = Receipts(disk)
    disk.fails = True
    with pytest.raises(BackendDown):
        await receipts.add(receipt(1))
    assert receipts.all == []


async def test_a_damaged_file_is_begun_anew() -> None:
    disk = FaultyDisk({"receipts.json": b'[{"id": 3}]'})
    receipts = Receipts(disk)
    await receipts.load()
    await receipts.add(receipt(1))
    assert [one.id for one in receipts.all] == ["sql-1"]
