"""Runs what presence may only describe: leases and the telling of news, each in a task of its own with its deadline.

Apart, because leases need the store that the nodes share and telling needs the database: neither waits for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from secureconnect.errors import SecureConnectError
from secureconnect.features.presence.service import Presence

ROUND_S: Final = 0.5
"""Between two rounds, half as much more or less by chance, so that nodes do not ask in step."""
FAREWELL_S: Final = 1.0


async def run_presence(presence: Presence, *, random: Callable[[], float], deadline_s: float = 5.0) -> None:
    """Until cancelled; then the node's leases are left to run out soon. `deadline_s`: of one round, of many calls.

    `random()` is uniform in [0, 1).
    """
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, presence, random, deadline_s)
            while True:
                await _pause(random)
                with trio.move_on_after(deadline_s) as scope:
                    await presence.lease()
                if scope.cancelled_caught:
                    presence.failed()
    finally:
        with trio.move_on_after(FAREWELL_S, shield=True), suppress(SecureConnectError):
            await presence.farewell()


async def _tell(presence: Presence, random: Callable[[], float], deadline_s: float) -> None:
    while True:
        await _pause(random)
        with trio.move_on_after(deadline_s), suppress(SecureConnectError):  # the next round tells it
            await presence.tell()


async def _pause(random: Callable[[], float]) -> None:
    await trio.sleep(ROUND_S * (0.5 + random()))
