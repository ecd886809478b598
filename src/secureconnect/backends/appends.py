"""Runs what features may only describe: the appends of the log and the sweeps of announcements, with their tasks and deadlines.

Both are started by app, one of each on a node. Their work is bounded elsewhere (`lanes.Limits`, `SWEEP_MAX`); here are the times.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import trio

from secureconnect.errors import Unavailable
from secureconnect.features.log.announcer import Announcer
from secureconnect.features.log.lanes import Call
from secureconnect.features.log.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Numbers of failure-policy.md §1."""

    attempt_s: float = 1.5
    """One call of the log store; afterwards its outcome is unknown and it is made again."""
    sweep_s: float = 5.0
    """One sweep of announcements, and the time between two: what a crash or a cancelled request left is told within 10 s."""
    sweep_again_s: float = 0.5
    """The time to the next sweep when one left something."""


async def run_appends(
    pipeline: Pipeline,
    *,
    deadlines: Deadlines = Deadlines(),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Make the pipeline's calls until cancelled; then nobody is left waiting for one."""
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                for call in pipeline.due():
                    nursery.start_soon(_attempt, pipeline, call, deadlines.attempt_s)
                with trio.CancelScope(deadline=pipeline.wake_at()):
                    await pipeline.changed()
    finally:
        pipeline.end()


async def _attempt(pipeline: Pipeline, call: Call, attempt_s: float) -> None:
    with trio.move_on_after(attempt_s) as scope:
        await pipeline.attempt(call)
    if scope.cancelled_caught:
        pipeline.unknown(call)


async def run_announcements(
    announcer: Announcer,
    *,
    deadlines: Deadlines = Deadlines(),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Sweep at the start and from time to time, until cancelled."""
    task_status.started()
    while True:
        is_clean = False
        with trio.move_on_after(deadlines.sweep_s):
            with suppress(Unavailable):  # the next one tries again; the store's own health is told elsewhere
                is_clean = await announcer.sweep()
        await trio.sleep(deadlines.sweep_s if is_clean else deadlines.sweep_again_s)
