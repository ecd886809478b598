"""All stores of a node in one hand, whatever they stand on: what the composition root hands to the features."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from secureconnect.features.access.store import AccessStore
from secureconnect.features.auth.store import RevocationStore, SessionStore, UserStore
from secureconnect.features.conversations.store import Store as ConversationStore
from secureconnect.features.conversations.store import UserDirectory
from secureconnect.features.log.announcer import AnnouncementStore
from secureconnect.features.log.store import LogStore
from secureconnect.hub import DigestTable


class Conversations(ConversationStore, AccessStore, Protocol):
    """One home answers both: what a conversation is, and who stands how to it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The stores. `probe` does the store's real write once, for health; `queues` shows the lines in front of it
    (`{name: {depth, bound, full_total}}`); `digests` None: nobody else can be there to read them."""

    users: UserStore
    sessions: SessionStore
    revocations: RevocationStore
    conversations: Conversations
    directory: UserDirectory
    log: LogStore
    announcements: AnnouncementStore
    digests: DigestTable | None
    probe: Callable[[], Awaitable[None]]
    queues: Callable[[], Mapping[str, Mapping[str, int]]]
