"""Locked accounts in SQL: a row for each lock, so that none is forgotten when Redis is, or a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.features.lockout.model import Lock

SELECT_LONGER: Final = "SELECT 1 FROM locks WHERE key = $1 AND until_us >= $2 LIMIT 1"
INSERT: Final = "INSERT INTO locks (key, until_us) VALUES ($1, $2) RETURNING number"
SELECT_SINCE: Final = "SELECT number, key, until_us FROM locks WHERE number > $1 AND until_us > $2 ORDER BY number LIMIT $3"
PURGE: Final = "DELETE FROM locks WHERE number IN (SELECT number FROM locks WHERE until_us < $1 LIMIT $2) RETURNING number"


class SqlLocks:
    """A `LockStore`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, key: str, until_us: int) -> None:
        await self._engine.write(lambda: _add(key, until_us))

    async def since(self, after: int, *, live_us: int, limit: int) -> Sequence[Lock]:
        return await self._engine.read(lambda: _since(after, live_us, limit))

    async def purge(self, before_us: int, *, limit: int) -> int:
        return await self._engine.write(lambda: _purge(before_us, limit))


def _add(key: str, until_us: int) -> Plan[None]:
    if not (yield SELECT_LONGER, (key, until_us)):
        yield INSERT, (key, until_us)


def _since(after: int, live_us: int, limit: int) -> Plan[list[Lock]]:
    rows = yield SELECT_SINCE, (after, live_us, limit)
    return [Lock(cast("int", row[0]), cast("str", row[1]), cast("int", row[2])) for row in rows]


def _purge(before_us: int, limit: int) -> Plan[int]:
    return len((yield PURGE, (before_us, limit)))
