"""The table of digests in a database, which outlives the nodes that wrote it."""

from __future__ import annotations

from pathlib import Path

from secureconnect.backends.sql.digests import KEPT_US, TIDY_EVERY, SqlDigestTable
from secureconnect.backends.sql.sqlite import open_sqlite


class Clock:
    us = 1_000_000_000_000

    def now_us(self) -> int:
        return self.us


async def test_the_rows_of_a_dead_node_go_too(tmp_path: Path) -> None:
    """Else every reader would meet the dead anew, and sweep for them, for ever."""
    clock = Clock()
    async with open_sqlite(tmp_path / "test.sqlite3", synchronous="OFF") as engine:
        table = SqlDigestTable(engine, clock)
        await table.write("dead", 1, 1, b"last words")
        clock.us += KEPT_US + 1
        await table.write("a", 1, TIDY_EVERY, b"alive")
        assert list(await table.since({})) == [b"alive"]
