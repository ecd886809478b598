"""Runs experiments: a cluster for each scenario, fresh people for each fault, then the oracle's verdict.

Importing this page needs the extras `load`, `postgres` and `redis`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from secureconnect.drill.cluster import Cluster, open_cluster
from secureconnect.drill.experiments import redis, sql
from secureconnect.drill.experiments.fault import Breakage
from secureconnect.drill.face import Face, new_client
from secureconnect.drill.load import Load
from secureconnect.drill.oracle import judge
from secureconnect.drill.record import Fault, Record
from secureconnect.drill.scenarios import Experiment

NODES: Final = 2
WARM_S: Final = 8.0
"""Of load before the fault: what is usual."""
AFTER_S: Final = 13.0
"""After it: what must be cleared is so within 10 s."""
OUTAGES_S: Final = (1.0, 10.0, 31.0)
SHORT_OUTAGES_S: Final = (8.0,)


@dataclass(frozen=True, slots=True)
class Plan:
    """Faults, and how long each of them lasts, one after the other."""

    faults: Sequence[Breakage]
    outages_s: Sequence[float]


FULL: Final = {"redis": Plan(redis.ALL, OUTAGES_S), "sql": Plan(sql.ALL, OUTAGES_S)}
SHORT: Final = {"redis": Plan(redis.SHORT, SHORT_OUTAGES_S), "sql": Plan(sql.SHORT, SHORT_OUTAGES_S)}


async def run_scenario(plan: Plan, *, told: Callable[[str], None]) -> list[Experiment]:
    """Every fault of the plan for every length. `told` is given a line for each that ended.

    Raises: BackendDown (a server program is missing), RuntimeError (a server does not start). Cancellation: the servers end.
    """
    found: list[Experiment] = []
    with tempfile.TemporaryDirectory(prefix="secureconnect-drill-") as folder:
        async with open_cluster(Path(folder), nodes=NODES) as cluster:
            for breakage in plan.faults:
                for for_s in plan.outages_s:
                    record = await measure(cluster, breakage, for_s, name=f"e{len(found)}")
                    found.append(Experiment(breakage.name, for_s, judge(record), record))
                    told(found[-1].line())
    return found


async def measure(cluster: Cluster, breakage: Breakage, for_s: float, *, name: str) -> Record:
    """One experiment: warm, break, mend, wait, finish."""
    nothing = Fault(breakage.name, breakage.dependency, 0.0, 0.0, breakage.is_outage)
    record = Record(nothing, tuple(node.name for node in cluster.nodes), breakage.independent)
    async with AsyncExitStack() as stack:
        faces = [Face(node.name, node.url, await stack.enter_async_context(new_client())) for node in cluster.nodes]
        load = Load(cluster, record, faces)
        await load.prepare(name)
        async with trio.open_nursery() as nursery:
            await nursery.start(load.run)
            await trio.sleep(1.0)
            record.began_s = trio.current_time()
            await trio.sleep(WARM_S)
            began_s = trio.current_time()
            await breakage.do(cluster, for_s)
            record.fault = Fault(breakage.name, breakage.dependency, began_s, trio.current_time(), breakage.is_outage)
            await trio.sleep(AFTER_S)
            await load.finish()
            nursery.cancel_scope.cancel()
    return record
