"""What `serve` does between its settings and its exit code: start, say so, wait for a signal, say goodbye."""

from __future__ import annotations

import gc

import trio

from secureconnect.app import SecureConnect
from secureconnect.commands import demo
from secureconnect.commands.ending import Ending
from secureconnect.commands.terminal import say
from secureconnect.config import Settings

GC_THRESHOLDS = (10_000, 20, 10)
"""Objects between two young collections, and how many of a generation make one of the next. Python's own 700 spent 17 % of a busy
server's time looking at connections that live for hours; reference counts free almost everything here, only cycles are left."""


async def run(settings: Settings, dev: bool) -> bool:
    """Whether it was ended by force."""
    people = await demo.people(settings) if dev else ()
    ending = Ending()
    async with trio.open_nursery() as nursery:
        await nursery.start(ending.watch, nursery.cancel_scope)
        async with SecureConnect(settings) as server:
            settle()
            ending.is_ready = True
            say(f"ready url={server.url}")
            if people:
                await demo.introduce(server.url, people)
            await ending.told.wait()
            await server.stop()
        nursery.cancel_scope.cancel()
    return ending.is_forced


def settle() -> None:
    """What exists now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
