"""What a node needs to go on without its database, and to be of one mind with the others afterwards: the tasks for that.

While the database is there it follows the revocations of the other nodes and keeps what it knows on its disk. While it is away it
says again and again which sessions ended here. When it is back, what was kept is brought home, and who was taken for a member is
asked for again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import anyio
import anyio.abc
import structlog

from secureconnect.errors import Unavailable
from secureconnect.fallback.endings import KIND, KeptEndings, endings_rule
from secureconnect.fallback.outage_log import OutageLog
from secureconnect.fallback.receipt import Receipts
from secureconnect.fallback.sync import SyncBack
from secureconnect.features.access.service import Access
from secureconnect.features.auth.endings import SessionEndings
from secureconnect.features.auth.last_known import LastKnown
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.store import RevocationStore
from secureconnect.ids import ConversationId, UserId
from secureconnect.ports import Blocking, Clock, Disk

FOLLOW_S: Final = 1.0
"""Between two looks for sessions that other nodes, or a command line, ended: a revocation holds everywhere within 2 s."""
RECHECK_S: Final = 1.0
"""Between two looks whether memberships are to be asked for again."""
SAVE_S: Final = 2.0
"""Between two writings of the known revocations, where they change all the time."""
WAIT_S: Final = 1.0
"""Between two looks at a database that is away at the start."""

_log = structlog.get_logger("secureconnect.fallback")


class Alone:
    """One per node. `keep_ending` is for its `Auth`, whose endings `serve` is given then; `receipts` are for health."""

    def __init__(self, disk: Disk, blocking: Blocking, *, clock: Clock) -> None:
        self.receipts = Receipts(disk)
        self._disk, self._blocking, self._clock = disk, blocking, clock
        self._outage_log = OutageLog(disk, "sql.outage")
        self._sync = SyncBack("sql", self._outage_log, self.receipts, {}, clock=clock)
        self._kept = KeptEndings(self._sync)
        self.keep_ending = self._kept.keep

    def serve(
        self,
        endings: SessionEndings,
        revocations: RevocationSet,
        store: RevocationStore,
        access: Access,
        *,
        removed: Callable[[ConversationId, UserId], None],
        access_token_s: int,
        deadline_s: float,
    ) -> None:
        """What it works for, once, before `load`. `removed`: tell who is no member any more. `deadline_s`: of one look."""
        self._endings, self._store, self._access, self._removed = endings, store, access, removed
        self._life_us, self._deadline_s = access_token_s * 1_000_000, deadline_s
        self._last_known = LastKnown(revocations, self._disk, self._blocking, clock=self._clock)
        self._sync.add_rule(KIND, endings_rule(endings))

    async def load(self) -> None:
        """Before anything is served: what an earlier run kept is in force. Raises: BackendDown (this node's disk)."""
        await self._sync.load()
        self._kept.hold(self._endings, most=len(self._sync.pending))

    async def wait_for_store(self, load: Callable[[], Awaitable[None]], *, known: Callable[[], None]) -> None:
        """Return when `load` has read all that is revoked. `known` is called as soon as tokens can be judged by what is: when the
        store was read, or by what this node knew last. Without either no token may pass."""
        is_known = False
        while True:
            try:
                await load()
            except Unavailable as error:
                _log.info("waiting_for_sql", error=str(error))
            else:
                known()
                return
            if not is_known and await self._last_known.load(life_us=self._life_us):
                is_known = True
                known()
            await anyio.sleep(WAIT_S)

    async def run(
        self, is_away: Callable[[], bool], *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Until cancelled. `is_away`: whether the database is."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._sync.run, is_away)
            tasks.start_soon(self._every, FOLLOW_S, self._follow)
            tasks.start_soon(self._every, RECHECK_S, self._recheck)
            tasks.start_soon(self._every, SAVE_S, self._last_known.save)
            task_status.started()

    def queues(self) -> Mapping[str, Mapping[str, int]]:
        """What waits to be brought home, in bytes."""
        log = self._outage_log
        return {"outage_log": {"depth": log.bytes, "bound": log.bytes_max, "full_total": log.full_total}}

    async def _every(self, period_s: float, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await anyio.sleep(period_s)
            with suppress(Unavailable), anyio.move_on_after(self._deadline_s):
                await look()

    async def _follow(self) -> None:
        try:
            await self._endings.follow(self._store)
        finally:
            self._kept.hold(self._endings)

    async def _recheck(self) -> None:
        if self._access.is_doubtful:
            await self._access.recheck(self._removed)
