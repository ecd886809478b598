"""The hub's table of digests in memory, for nodes that live in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from trio.lowlevel import checkpoint

ROWS_MAX: Final = 120
"""Rows kept of a node: two minutes, twice what a reader needs."""


class MemoryDigestTable:
    """A `hub.DigestTable`."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[int, int], bytes]] = {}

    async def write(self, node: str, epoch: int, number: int, data: bytes) -> None:
        await checkpoint()
        rows = self._rows.setdefault(node, {})
        rows[epoch, number] = data
        while len(rows) > ROWS_MAX:
            del rows[next(iter(rows))]

    async def since(self, seen: Mapping[str, tuple[int, int]]) -> Sequence[bytes]:
        await checkpoint()
        return [rows[place] for node, rows in self._rows.items() for place in sorted(rows) if place > seen.get(node, (-1, -1))]
