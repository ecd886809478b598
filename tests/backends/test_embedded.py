"""The embedded backend as production opens it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from secureconnect.backends.embedded import open_embedded
from secureconnect.backends.sql import sqlite
from secureconnect.backends.system import SystemClock
from secureconnect.ids import NodeId

FULL = 2


async def test_its_writer_waits_for_the_disk(tmp_path: Path) -> None:
    """`synchronous=FULL`: what is acknowledged was fsynced. The fake disk shows why; this shows that production asks for it."""
    opened: list[sqlite3.Connection] = []
    original = sqlite._thread

    def spy(name: str, serve: object, connection: sqlite3.Connection) -> object:
        opened.append(connection)
        return original(name, serve, connection)  # type: ignore[arg-type]  # passed through

    sqlite._thread = spy  # type: ignore[assignment]  # the one place that sees every connection
    try:
        async with open_embedded(tmp_path / "t.db", node=NodeId("n"), clock=SystemClock()) as bundle:
            await bundle.watched.probe()
            (level,) = opened[0].execute("PRAGMA synchronous").fetchone()
    finally:
        sqlite._thread = original
    assert level == FULL
    assert bundle.queues()["sql_writes"]["depth"] == 0
