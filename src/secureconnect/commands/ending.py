"""What signals ask of a running server: the first one a goodbye, the second one none.

Before the server is ready there is nobody to say goodbye to, and the first signal ends it.
"""

from __future__ import annotations

import signal

import structlog
import trio

_log = structlog.get_logger("secureconnect.serve")


class Ending:
    """What signals asked for so far."""

    def __init__(self) -> None:
        self.told = trio.Event()
        self.is_ready = False
        self.is_forced = False

    async def watch(self, everything: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled. `everything` is cancelled when there is to be no goodbye."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                if self.is_ready and not self.told.is_set():
                    _log.info("told_to_stop", signal=signal.Signals(number).name, again="ends at once")
                    self.told.set()
                else:
                    self.is_forced = self.is_ready
                    everything.cancel()
