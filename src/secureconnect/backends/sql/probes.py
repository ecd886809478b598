"""The health probe of a database: a small write that is as durable as any other, because a ping proves nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.ids import NodeId
from secureconnect.ports import Clock

WRITE = """INSERT INTO probes (node, at_us) VALUES ($1, $2)
    ON CONFLICT (node) DO UPDATE SET at_us = excluded.at_us"""


def prober(engine: Engine, node: NodeId, clock: Clock) -> Callable[[], Awaitable[None]]:
    """What to call once a second. It raises as `Engine.write`."""

    def write() -> Plan[None]:
        yield WRITE, (node, clock.now_us())

    async def probe() -> None:
        await engine.write(write)

    return probe
