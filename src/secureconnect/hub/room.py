"""Room before an append: a publisher waits here while its channel is full, because after the append nothing may fail."""

from __future__ import annotations

from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .channel import Channel
from .channels import Channels
from .errors import Full
from .pump import Pump


class Reservation:
    """Room for one event, until the `with` block ends. Inside it the event is appended and committed."""

    __slots__ = ("_channel", "_pump")

    def __init__(self, channel: Channel | None, pump: Pump) -> None:
        self._channel = channel
        self._pump = pump
        if channel is not None:
            channel.reserved += 1

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give it back, and let who waits for room look again: the turn may have ended before. Idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.reserved -= 1
            self._pump.look_for_room()


async def reserve(channels: Channels, name: str, *, wait_s: float) -> Reservation:
    """Wait for room in a channel; none is needed where it is not open. Raises: Full. Cancellation: nothing is held."""
    await checkpoint_if_cancelled()
    channel = channels.by_name.get(name)
    if channel is None:
        return Reservation(None, channels.pump)
    if not _has_room(channel):
        channel.load.full_total += 1
        with anyio.move_on_after(wait_s):
            while not _has_room(channel):
                await channels.pump.wait_room()
        if not _has_room(channel):
            raise Full(name)
    return Reservation(channel, channels.pump)


def _has_room(channel: Channel) -> bool:
    return channel.left() > channel.reserved
