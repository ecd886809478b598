"""SIGTERM and Ctrl-C: the first begins the drain, the second ends at once, and before the server is ready one is enough."""

from __future__ import annotations

import os
import signal

import pytest
import trio
import trio.testing

from secureconnect.commands.ending import Ending

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


async def _signalled(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    await trio.testing.wait_all_tasks_blocked(0.01)  # the handler runs in the interpreter, the receiver in its task


@BOTH
async def test_the_first_signal_begins_the_drain_and_cancels_nothing(number: signal.Signals) -> None:
    ending = Ending()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(ending.watch, nursery.cancel_scope)
            ending.is_ready = True
            await _signalled(number)
            await ending.told.wait()
            assert not nursery.cancel_scope.cancel_called
            nursery.cancel_scope.cancel()
    assert not ending.is_forced


@BOTH
async def test_the_second_signal_ends_everything_at_once(number: signal.Signals) -> None:
    ending = Ending()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(ending.watch, nursery.cancel_scope)
            ending.is_ready = True
            await _signalled(number)
            await ending.told.wait()
            await _signalled(number)
            await trio.sleep_forever()
    assert ending.is_forced


@BOTH
async def test_before_it_is_ready_one_signal_ends_it_and_that_is_not_by_force(number: signal.Signals) -> None:
    ending = Ending()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(ending.watch, nursery.cancel_scope)
            await _signalled(number)
            await trio.sleep_forever()
    assert not ending.told.is_set()
    assert not ending.is_forced
