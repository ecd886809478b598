"""What waits in front of one socket that does not take everything at once, and who waits for room in it.

It exists only while something waits. Everything stands in one line, in the order of the calls, but three kinds have room of their
own, so that none can take another's: events (what does not fit is replayed from the log when there is room), frames of control
(pongs, refusals, notices, the close frame) and answers. An answer that finds no room waits in its command's task, in the order of
asking, and no further command begins in that one's place: whoever asks for much is served as fast as it reads, no faster.

The bound, for `outbox_bytes_max` of B: events 5/8 B, control another 1/8 B, answers 1/4 B or one alone whatever its size, which
exists already. Beside the line wait at most `commands_aside_max` + 1 answers, one for each command under way.
"""

from __future__ import annotations

from collections import deque

import trio

from secureconnect.hub import Outbox
from secureconnect.server.websocket_limits import GatewayLimits

EVENTS_SHARE = 5 / 8
CONTROL_SHARE = 3 / 4
"""Of events and frames of control together: a replay fills its share to the brim, and pongs must still find room."""
ANSWERS_SHARE = 1 / 4
CROWDED_SHARE = 11 / 16
"""Above this the socket's reader pauses, so that what is said back to the client cannot overflow the reserve."""


class Backlog(Outbox):
    """The line of one socket. Everything but `wait_answer` and `wait_progress` is synchronous."""

    __slots__ = ("_answers", "_limits", "_moved", "left_bytes")

    def __init__(self, limits: GatewayLimits) -> None:
        super().__init__(
            messages_max=int(limits.outbox_messages_max * EVENTS_SHARE), bytes_max=int(limits.outbox_bytes_max * EVENTS_SHARE)
        )
        self.left_bytes = 0
        """That have gone to the kernel since it began: whether the peer reads."""
        self._limits = limits
        self._answers: deque[tuple[bytes, trio.Event]] = deque()
        self._moved: trio.Event | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether the reader should pause."""
        limits = self._limits
        return (
            self.bytes - self.apart_bytes > limits.outbox_bytes_max * CROWDED_SHARE
            or self.messages > limits.outbox_messages_max * CROWDED_SHARE
        )

    def control(self, frame: bytes) -> bool:
        """Queue a frame that answers no command. False: no room."""
        limits = self._limits
        if (
            self.messages >= limits.outbox_messages_max
            or self.bytes - self.apart_bytes + len(frame) > limits.outbox_bytes_max * CONTROL_SHARE
        ):
            return False
        self.push(frame)
        return True

    def answer(self, frame: bytes) -> bool:
        """Queue an answer. False: it must wait, for room or behind others."""
        if self._answers or not self._fits_answer(frame):
            return False
        self.push(frame, apart=True)
        return True

    async def wait_answer(self, frame: bytes) -> None:
        """Until the answer stands in the line, or the connection ends. Cancellation: it is sent all the same."""
        queued = trio.Event()
        self._answers.append((frame, queued))
        await queued.wait()

    async def wait_progress(self) -> None:
        """Until some of the line has left, or the connection is gone."""
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()

    def admit(self) -> None:
        """Take the answers into the line that have room now, in their order."""
        while self._answers and self._fits_answer(self._answers[0][0]):
            frame, queued = self._answers.popleft()
            self.push(frame, apart=True)
            queued.set()

    def moved(self) -> None:
        """Wake who waits for progress."""
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    def refuse_answers(self) -> None:
        """The connection is closing: the answers that wait for room are not sent."""
        while self._answers:
            self._answers.popleft()[1].set()

    def _fits_answer(self, frame: bytes) -> bool:
        """One alone may be of any size."""
        if not self.apart_bytes:
            return True
        limits = self._limits
        return (
            self.apart_bytes + len(frame) <= limits.outbox_bytes_max * ANSWERS_SHARE
            and self.messages < limits.outbox_messages_max * EVENTS_SHARE
        )
