"""What a connection needs of whoever understands its messages."""

from __future__ import annotations

from typing import Protocol


class Receiver(Protocol):
    """Who gets a connection's messages. All but `caught_up` is synchronous."""

    def received(self, payload: bytes, *, is_text: bool) -> bool:
        """One whole message. False: `caught_up` must return before the next one is given."""
        ...

    async def caught_up(self) -> None:
        """Until the next message may be given. Returns soon after `ended`."""
        ...

    def due(self, now_s: float) -> float:
        """Do what is due; the next time something may be, `math.inf` for never."""
        ...

    def ended(self) -> None:
        """Nothing more will be said: the connection is closing or gone. May come twice."""
        ...
