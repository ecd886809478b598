"""The hub's table of digests in SQL: the way between nodes that remains while the bus is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, cast

from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.errors import Unavailable
from secureconnect.hub import TableAway
from secureconnect.ports import Clock

KEPT_US: Final = 60_000_000
"""Rows older than a minute are of no use to anybody. Nodes whose clocks differ by more lose rows: the hub sweeps for those."""
TIDY_EVERY: Final = 30
"""Old rows of every node, also of the dead, go with each so-manieth write, which is twice a minute."""

UPSERT: Final = """
    INSERT INTO digests (node, epoch, number, data, at_us) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (node, epoch, number) DO UPDATE SET data = excluded.data, at_us = excluded.at_us
"""
DELETE_OLD: Final = "DELETE FROM digests WHERE at_us < $1"
SELECT_NODES: Final = "SELECT DISTINCT node FROM digests ORDER BY node"
SELECT_SINCE: Final = """
    SELECT data FROM digests WHERE node = $1 AND (epoch > $2 OR (epoch = $2 AND number > $3)) ORDER BY epoch, number
"""


class SqlDigestTable:
    """A `hub.DigestTable` over an engine."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def write(self, node: str, epoch: int, number: int, data: bytes) -> None:
        now_us = self._clock.now_us()
        try:
            await self._engine.write(partial(_write, node, epoch, number, data, now_us))
        except Unavailable as error:
            raise TableAway(str(error)) from error

    async def since(self, seen: Mapping[str, tuple[int, int]]) -> Sequence[bytes]:
        try:
            return await self._engine.read(partial(_since, dict(seen)))
        except Unavailable as error:
            raise TableAway(str(error)) from error


def _write(node: str, epoch: int, number: int, data: bytes, now_us: int) -> Plan[None]:
    yield UPSERT, (node, epoch, number, data, now_us)
    if number % TIDY_EVERY == 0:
        yield DELETE_OLD, (now_us - KEPT_US,)


def _since(seen: Mapping[str, tuple[int, int]]) -> Plan[Sequence[bytes]]:
    nodes = yield SELECT_NODES, ()
    found: list[bytes] = []
    for (node,) in cast("list[tuple[str]]", nodes):
        epoch, number = seen.get(node, (-1, -1))
        rows = yield SELECT_SINCE, (node, epoch, number)
        found += [data for (data,) in cast("list[tuple[bytes]]", rows)]
    return found
