"""The folder behind `ports.Disk`: what was written is there, in order, and synced before it is said to be."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Event

import pytest
import trio
import trio.testing

from secureconnect.backends import disk as module
from secureconnect.backends.disk import FolderDisk
from secureconnect.fallback import OutageLog


async def test_a_file_is_made_with_its_folder_for_this_user_only_and_ends_behind_what_was_written(tmp_path: Path) -> None:
    disk = FolderDisk(tmp_path / "data")
    assert await disk.read("a") is None
    await disk.write("a", b"12345", at=0)
    await disk.write("a", b"xy", at=2)
    assert await disk.read("a") == b"12xy"
    await disk.replace("a", b"new")
    assert await disk.read("a") == b"new"
    assert stat.S_IMODE((tmp_path / "data" / "a").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "data") == ["a"]


async def test_everything_is_synced_before_it_is_said_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_sync, real_write = os.fsync, os.pwrite

    def sync(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync")
        real_sync(descriptor)

    def write(descriptor: int, data: bytes, at: int) -> int:
        calls.append("write")
        return real_write(descriptor, data, at)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "pwrite", write)
    disk = FolderDisk(tmp_path)
    await disk.write("a", b"1", at=0)
    assert calls == ["write", "sync", "folder"]
    await disk.write("a", b"2", at=1)
    assert calls[3:] == ["write", "sync"]
    await disk.replace("a", b"3")
    assert calls[5:] == ["write", "sync", "folder"]


async def test_a_write_that_takes_less_than_all_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[:2], at))
    disk = FolderDisk(tmp_path)
    await disk.write("a", b"12345", at=0)
    assert await disk.read("a") == b"12345"


async def test_what_a_cancelled_caller_began_is_done_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage's log writes to the same place again; the abandoned write must not come later."""
    begun, gate = Event(), Event()
    real = module._put

    def held(descriptor: int, data: bytes, at: int) -> None:
        if data == b"abandoned":
            begun.set()
            assert gate.wait(5)
        real(descriptor, data, at)

    monkeypatch.setattr(module, "_put", held)
    disk = FolderDisk(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: disk.write("a", b"abandoned", at=0))
        await trio.to_thread.run_sync(begun.wait, 5)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: disk.write("a", b"next", at=0))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert await disk.read("a") == b"next"


async def test_an_outage_log_stands_on_it(tmp_path: Path) -> None:
    log = OutageLog(FolderDisk(tmp_path), "outage")
    await log.load()
    await log.keep("k", "a", b"", at_us=1)
    again = OutageLog(FolderDisk(tmp_path), "outage")
    await again.load()
    assert [item.key for item in again.pending] == ["a"]
