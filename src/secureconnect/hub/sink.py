"""Where one connection's events go: the protocols that whoever owns the connection implements.

Everything but `wait_room` is synchronous and returns at once, so a turn of the pump cannot be held up by a connection, and
nothing comes between the decision that a member gets an event and its getting it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from .frame import Frame

SendNow: TypeAlias = Callable[[bytes], int]


class Sink(Protocol):
    """A bounded queue in front of a connection. It counts what leaves it by `Peer.delivered`, what it drops by `Peer.dropped`.

    A sink that wants to know its peer has a method `attach(peer)`, which `Hub.connect` calls. One whose line is not only events
    may have `left_bytes`, a number that changes while its peer reads: a replay that waits for room behind something else is
    then not taken for one that nobody reads.
    """

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        """Take all of it, in order, or nothing and answer False: no room. Never blocks.

        `droppable`: ephemeral; a sink that is filling up refuses these first, so that room is left for what is numbered.
        """
        ...

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        """Return when `offer(frames, droppable=False)` would succeed. One caller at a time. Cancellation: nothing is lost."""
        ...

    def hang_up(self, reason: str) -> None:
        """End the connection so that its client comes back and resumes. The hub has no further use for the sink. Idempotent."""
        ...


class DirectSink(Sink, Protocol):
    """A socket that the pump may write to itself while nothing waits in front of it.

    The owner says `Peer.busy()` when it queues bytes of its own and `Peer.idle()` when all of them have left: in between the
    pump goes through `offer`, so the order of bytes is the order of calls.
    """

    send_now: SendNow
    """Like `socket.send` of a non-blocking socket, best that very method. Raises: BlockingIOError, OSError. Asked for once."""

    def keep(self, rest: memoryview | bytes, frames: int) -> None:
        """`send_now` took less than all, maybe nothing: put `rest` first in line and start to drain; no bound applies.

        It ends `frames` event frames, which are reported by `Peer.delivered` when the rest has left. The peer is busy already.
        """
        ...

    def broken(self, error: OSError) -> None:
        """`send_now` raised it: the connection is gone. The owner closes its peer, now or later."""
        ...
