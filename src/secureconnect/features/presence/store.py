"""Leases of presence: each node vouches for its users for a while, and again before that is over.

A node that dies can take nobody's lease back; its leases run out, and whoever removes one that is due announces what that
changes. A user is there while any node holds a lease, so it does not matter how many sockets there are on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from secureconnect.ids import UserId

LEASE_S: Final = 90.0
RENEW_S: Final = 30.0
"""A lease survives two lost renewals. Renewals, those after a return of the store above all, are spread over this by jitter."""
USERS_MAX: Final = 256
"""In one call; a few hundred µs of the store's time."""
GONE_MAX: Final = 100_000
"""Users of whom it is kept when they went, about 130 bytes each; who went longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who came and who went by one call: the caller, and nobody else, announces it."""

    came: Sequence[UserId] = ()
    went: Sequence[UserId] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the store knows of a user. `went_us`: wall time at which the last lease ended; None: she is there, or nobody knows."""

    user: UserId
    is_there: bool
    went_us: int | None = None


class LeaseStore(Protocol):
    """Leases by user and node, on the store's clock. Each method is atomic, takes ≤ `USERS_MAX` users, raises Unavailable.

    Cancellation and OutcomeUnknown: it may have been done, and then nobody learnt of the change; whoever asks `look` does.
    """

    async def hold(self, node: str, users: Sequence[UserId], *, lease_s: float = LEASE_S) -> Change:
        """Take or renew the node's leases of these users."""
        ...

    async def release(self, node: str, users: Sequence[UserId]) -> Change:
        """Give them back: nobody of these is on this node any more."""
        ...

    async def expire(self) -> Change:
        """Remove up to `USERS_MAX` leases that are due. Called by every node now and then; each lease is removed by one."""
        ...

    async def look(self, users: Sequence[UserId]) -> Sequence[Sighting]:
        """Each of these, in the order asked."""
        ...
