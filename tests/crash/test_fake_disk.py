"""Acknowledged means durable: on a disk that drops what was not synced, every acknowledged entry is there after every power cut.

kill -9 proves nothing about this, for the page cache survives it. So the real engine runs on a disk that records writes and syncs
(fake_disk.c), and the power is cut in hindsight: after every sync and after every acknowledgement.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.crash import fake_disk
from tests.crash.fake_disk import Disk, Keep, Record

APPENDS = 400


@dataclass
class Cut:
    """What a power cut did: how many entries had been acknowledged, and what of that the database has lost."""

    acknowledged: int
    lost: list[str]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        missing = "the proof of fsync needs a C compiler: apt-get install gcc libc6-dev"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return fake_disk.build(tmp_path_factory.mktemp("fake_disk"))


def traced(library: Path, directory: Path, synchronous: str) -> list[Record]:
    trace, data = directory / "trace", directory / "data"
    data.mkdir()
    fake_disk.run(library, data, trace, synchronous, str(APPENDS))
    return list(fake_disk.read(trace))


def cuts(records: list[Record], place: Path, keep: Keep) -> Iterator[Cut]:
    """Cut the power after every sync and every acknowledgement."""
    disk, acknowledged = Disk(), list[str]()
    for number, record in enumerate(records):
        if record.name == "acks":
            acknowledged += record.data.decode().splitlines()
        else:
            disk.apply(record)
        follows = records[number + 1] if number + 1 < len(records) else None
        is_run = record.name == "acks" and follows is not None and follows.name == "acks"
        if (record.kind == "S" or record.name == "acks") and not is_run:
            directory = place / str(number)
            directory.mkdir()
            disk.after_power_cut(directory, keep)
            yield Cut(len(acknowledged), lost(directory / "log.sqlite3", acknowledged))
            shutil.rmtree(directory)


def lost(path: Path, acknowledged: list[str]) -> list[str]:
    """What was acknowledged and is not in the database; a database that is damaged or has holes fails at once."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchall():
            return list(acknowledged)
        rows = connection.execute("SELECT conversation_id, key, sequence FROM entries").fetchall()
        tails = dict(connection.execute("SELECT conversation_id, tail FROM heads").fetchall())
        bodies = connection.execute("SELECT count(*) FROM messages WHERE length(body) > 300").fetchone()
    finally:
        connection.close()
    for conversation, tail in tails.items():
        assert sorted(sequence for name, _, sequence in rows if name == conversation) == list(range(1, tail + 1))
    assert bodies == (len(rows),)
    there = {f"{conversation} {key} {sequence}" for conversation, key, sequence in rows}
    return [line for line in acknowledged if line not in there]


def nothing() -> bool:
    return False


def everything() -> bool:
    return True


def by_chance(seed: int) -> Keep:
    chance = random.Random(seed)
    return lambda: chance.random() < 0.5


@pytest.fixture(scope="module")
def full(library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return traced(library, tmp_path_factory.mktemp("full"), "FULL")


@pytest.mark.parametrize(
    "keep", [nothing, everything, by_chance(1), by_chance(2)], ids=["nothing", "everything", "some", "others"]
)
def test_no_power_cut_loses_what_was_acknowledged(full: list[Record], tmp_path: Path, keep: Keep) -> None:
    """`keep`: what of the unsynced sectors is there afterwards."""
    made = list(cuts(full, tmp_path, keep))
    assert [cut for cut in made if cut.lost] == []
    assert made[-1].acknowledged == APPENDS
    assert len({cut.acknowledged for cut in made}) > 10, "it was cut in many places"


def test_the_trace_shows_copies_of_the_log_into_the_file(full: list[Record]) -> None:
    """Otherwise the most delicate moment, where the log begins anew, was not tried."""
    assert sum(record.kind == "S" and record.name == "log.sqlite3" for record in full) >= 3


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_the_same_check_catches_an_engine_that_does_not_sync(library: Path, tmp_path: Path, synchronous: str) -> None:
    records = traced(library, tmp_path, synchronous)
    assert any(cut.lost for cut in cuts(records, tmp_path, nothing))


def test_the_same_check_catches_an_acknowledgement_before_the_sync(full: list[Record], tmp_path: Path) -> None:
    """The planted bug: what was told right after a sync is told right before it."""
    hurried: list[Record] = []
    for record in full:
        syncs = [place for place, earlier in enumerate(hurried) if earlier.kind == "S"]
        hurried.insert(syncs[-1] if record.name == "acks" else len(hurried), record)
    assert any(cut.lost for cut in cuts(hurried, tmp_path, nothing))
