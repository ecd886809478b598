"""All stores of a node in one hand, whatever they stand on: what the composition root hands to the features."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from secureconnect.features.access.store import AccessStore
from secureconnect.features.auth.store import RevocationStore, SessionStore, UserStore
from secureconnect.features.conversations.store import Store as ConversationStore
from secureconnect.features.conversations.store import UserDirectory
from secureconnect.features.lockout.store import LockoutStore, LockStore
from secureconnect.features.log.announcer import AnnouncementStore
from secureconnect.features.log.store import LogStore
from secureconnect.features.presence.store import LeaseStore
from secureconnect.features.rates.store import RateStore
from secureconnect.hub import Bus, DigestTable
from secureconnect.resilience import Stack


class Conversations(ConversationStore, AccessStore, Protocol):
    """One home answers both: what a conversation is, and who stands how to it."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A dependency as health sees it. `probe` does its real write once, and is the canary of the breaker in `stack`.

    `stack` None: there is no breaker, it is in this process. `pool`: `{in_use, idle, waiting, max}`, where there is one.
    """

    name: str
    probe: Callable[[], Awaitable[None]]
    stack: Stack | None = None
    pool: Callable[[], Mapping[str, int]] | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """What the nodes share beside the stores, or what a single node has in its memory instead.

    `rates` None: each node counts for itself. `watched`: what it stands on; `generation` grows whenever that was lost and has
    come back.
    """

    bus: Bus
    rates: RateStore | None
    lockouts: LockoutStore
    leases: LeaseStore
    watched: Sequence[Watched] = ()
    generation: Callable[[], int] = int


@dataclass(frozen=True, slots=True)
class Bundle:
    """The stores. `queues` shows the lines in front of them (`{name: {depth, bound, full_total}}`).

    `digests` None: nobody else can be there to read them.
    """

    users: UserStore
    sessions: SessionStore
    revocations: RevocationStore
    locks: LockStore
    conversations: Conversations
    directory: UserDirectory
    log: LogStore
    announcements: AnnouncementStore
    digests: DigestTable | None
    watched: Watched
    queues: Callable[[], Mapping[str, Mapping[str, int]]]
