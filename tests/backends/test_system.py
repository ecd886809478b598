"""The real clock, chance, ids, threads, and the secret a node makes for itself."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from structlog.testing import capture_logs

from secureconnect.backends.system import (
    IDS_PER_BLOCK,
    SystemClock,
    SystemIds,
    SystemRng,
    ThreadBlocking,
    kept_secret,
    sole_server,
)
from secureconnect.errors import BackendDown, ConfigError
from secureconnect.ids import is_uuid
from secureconnect.ports import Blocking, Clock, Ids, Rng

AS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_they_are_what_the_ports_ask_for() -> None:
    ports: tuple[Clock, Rng, Ids, Blocking] = (SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())
    assert all(ports)


def test_the_clock_tells_wall_time_in_microseconds() -> None:
    before = time.time_ns() // 1000
    assert before <= SystemClock().now_us() <= time.time_ns() // 1000


def test_a_jump_back_over_a_second_is_followed_and_logged_once() -> None:
    times = iter([10_000_000_000, 9_000_000_000, 5_000_000_000, 5_000_001_000])
    clock = SystemClock(lambda: next(times))
    with capture_logs() as lines:
        assert [clock.now_us() for _ in range(4)] == [10_000_000, 9_000_000, 5_000_000, 5_000_001]
    assert [(line["event"], line["by_s"]) for line in lines] == [("clock_went_back", 4.0)]


def test_chance_is_uniform_in_zero_to_one_and_secrets_differ() -> None:
    rng = SystemRng()
    values = [rng.random() for _ in range(1000)]
    assert all(0 <= value < 1 for value in values)
    assert 0.4 < sum(values) / len(values) < 0.6
    assert len({rng.secret(16) for _ in range(100)}) == 100
    assert len(rng.secret(33)) == 33


def test_ids_are_version_4_uuids_and_never_repeat_across_blocks() -> None:
    ids = SystemIds()
    made = [ids.new() for _ in range(3 * IDS_PER_BLOCK + 1)]
    assert len(set(made)) == len(made)
    assert all(is_uuid(one) and one[14] == "4" and one[19] in "89ab" for one in made)


async def test_work_runs_aside_and_its_result_or_exception_comes_back() -> None:
    blocking = ThreadBlocking()
    here = threading.get_ident()
    assert await blocking.run(threading.get_ident) != here
    with pytest.raises(ZeroDivisionError):
        await blocking.run(lambda: 1 // 0)


async def test_no_more_work_runs_at_once_than_there_are_threads() -> None:
    blocking, lock, go, both = ThreadBlocking(2), threading.Lock(), threading.Event(), trio.Event()
    counts = {"now": 0, "most": 0, "begun": 0}

    def work() -> None:
        with lock:
            counts["now"] += 1
            counts["begun"] += 1
            counts["most"] = max(counts["most"], counts["now"])
            if counts["begun"] == 2:
                trio.from_thread.run_sync(both.set)
        go.wait(5)
        with lock:
            counts["now"] -= 1

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(blocking.run, work)
            await both.wait()
            go.set()
    assert counts == {"now": 0, "most": 2, "begun": 6}


async def test_who_is_cancelled_leaves_at_once_and_the_work_keeps_its_place() -> None:
    blocking, go, ended = ThreadBlocking(1), threading.Event(), threading.Event()

    def work() -> None:
        go.wait(5)
        ended.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(_cancel_when_blocked, scope)
                await blocking.run(work)
            assert scope.cancelled_caught
            assert not ended.is_set()
            go.set()
            assert await blocking.run(ended.is_set)  # waits for the only thread, which the abandoned work still has


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


def test_a_secret_is_made_once_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with capture_logs() as lines:
        secret = kept_secret(folder)
    assert lines == []  # it was never wider open and then closed
    assert len(secret) == 64
    assert kept_secret(folder) == secret
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert kept_secret(tmp_path / "other") != secret


def test_processes_that_start_together_get_the_same_secret(tmp_path: Path) -> None:
    for number in range(20):
        with ThreadPoolExecutor(4) as pool:
            made = set(pool.map(lambda _, n=number: kept_secret(tmp_path / str(n)), range(4)))
        assert len(made) == 1


def test_a_secret_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    secret = kept_secret(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    with capture_logs() as lines:
        assert kept_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert lines[0]["event"] == "secret_was_readable"
    assert secret not in str(lines)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 64])
def test_a_damaged_secret_stops_the_start_and_is_never_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no secret"):
        kept_secret(tmp_path)
    assert (tmp_path / "secret").read_bytes() == content


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="SECURECONNECT_SECRET"):
        kept_secret(tmp_path / "file")


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_read_only_folder_is_named_with_the_way_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        kept_secret(tmp_path)


def test_one_database_has_one_server_and_is_free_again_after_it(tmp_path: Path) -> None:
    database = tmp_path / "secureconnect.db"
    with sole_server(database), pytest.raises(BackendDown, match="Another server runs"), sole_server(database):
        pytest.fail("two servers on one database")
    with sole_server(database):
        assert (tmp_path / "secureconnect.db.lock").exists()
