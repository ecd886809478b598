"""Copying the write-ahead log into the database file beside the writer, so that no commit waits for it.

Theory. SQLite does this inside the COMMIT that fills the log, and that commit, with everybody behind it, waits for thousands of
page writes and two fsyncs: 50 to 150 ms, several times a second under load. Here a thread of its own copies with a passive
checkpoint, during which the writer goes on. The log starts again from its beginning only when all of it is copied, and a busy
writer is always a little ahead; so when the thread is done, the writer itself copies the short rest between two transactions.
Whatever fails here is tried again later: until it is copied, the log is as durable as the file. SQLite's own threshold stays
as a bound, far above (`sqlite_file.CHECKPOINT_PAGES`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

CHECKPOINT_AFTER: Final = 2_000
"""Transactions and jobs since the last one. Each leaves one to five pages of 4 KiB in the log: some 16 MiB."""
_CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpointer:
    """`wrote` belongs to the writer thread, `serve` to the thread of its own, on its own connection."""

    def __init__(self, *, after: int = CHECKPOINT_AFTER) -> None:
        self._after = after
        self._written = 0
        self._is_asked = False
        self._is_copied = False  # set by the checkpointing thread, cleared by the writer
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self.total = 0
        """Passive checkpoints made beside the writer."""

    def wrote(self, writer: sqlite3.Connection, jobs: int) -> None:
        """Between two transactions: count, ask for a copy, copy the rest of one."""
        self._written += 1 + jobs
        if self._is_copied:
            self._is_copied = self._is_asked = False
            self._written = 0
            with suppress(sqlite3.Error):
                writer.execute(_CHECKPOINT).fetchall()
        elif self._written >= self._after and not self._is_asked:
            self._is_asked = True
            self._asked.put(True)

    def serve(self, connection: sqlite3.Connection, ended: Callable[[], object]) -> None:
        """The thread: copy whenever asked, until `end`."""
        while self._asked.get():
            with suppress(sqlite3.Error):
                connection.execute(_CHECKPOINT).fetchall()
            self.total += 1
            self._is_copied = True
        connection.close()
        ended()

    def end(self) -> None:
        """From any thread: end when what was asked is done."""
        self._asked.put(False)
