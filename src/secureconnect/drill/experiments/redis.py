"""Redis is killed, frozen, refused, slow, restarted empty; each of our links to it is cut again and again."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from secureconnect.drill.cluster import Cluster
from secureconnect.drill.experiments.fault import Breakage, Deed

SLOW_S: Final = 3.0
CUT_S: Final = 0.1
"""Between two cuts of a link, which is dialled again meanwhile."""
INDEPENDENT: Final = frozenset({"ping", "profile", "history", "send"})


async def killed(cluster: Cluster, for_s: float) -> None:
    cluster.redis.kill()
    await trio.sleep(for_s)
    await trio.to_thread.run_sync(cluster.redis.start)


async def frozen(cluster: Cluster, for_s: float) -> None:
    cluster.redis.freeze()
    await trio.sleep(for_s)
    cluster.redis.thaw()


async def refused(cluster: Cluster, for_s: float) -> None:
    cluster.line.refuse()
    cluster.line.reset()
    await trio.sleep(for_s)
    await cluster.line.heal()


async def slow(cluster: Cluster, for_s: float) -> None:
    cluster.line.slow(SLOW_S)
    await trio.sleep(for_s)
    await cluster.line.heal()


async def restarted_empty(cluster: Cluster, for_s: float) -> None:
    await trio.to_thread.run_sync(cluster.redis.restart)
    await trio.sleep(for_s)


async def link_cut(use: str, cluster: Cluster, for_s: float) -> None:
    with trio.move_on_after(for_s):
        while True:
            await trio.to_thread.run_sync(cluster.redis.cut, use)
            await trio.sleep(CUT_S)


def _breakage(name: str, do: Deed, *, is_outage: bool = True) -> Breakage:
    return Breakage(name, "redis", do, INDEPENDENT, is_outage)


ALL: Final = (
    _breakage("killed", killed),
    _breakage("frozen", frozen),
    _breakage("refused", refused),
    _breakage("slow", slow),
    _breakage("restarted empty", restarted_empty, is_outage=False),
    *(_breakage(f"{use} link cut", partial(link_cut, use), is_outage=False) for use in ("publish", "subscribe", "command")),
)
SHORT: Final = tuple(one for one in ALL if one.name in ("killed", "frozen", "subscribe link cut"))
