"""What a database transaction has to say in a log: written beside the rows it is about, appended afterwards, once.

The log may live elsewhere than the rows, so no transaction spans both. A feature that changes rows writes its announcements in
that very transaction and then says `flush`; what a crash, a cancelled request or an unreachable log left behind is found by
`sweep`. The entry's key makes telling it twice the same as once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from secureconnect.errors import Unavailable
from secureconnect.features.log.model import NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.ids import ConversationId, UserId

SWEEP_MAX: Final = 256
"""Announcements of one sweep; more are left, and the sweep says so."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An entry that waits for its way into the log. It is about no message, so the log cannot refuse it.

    `id` grows in the order of writing. `joined`: the member who may read from this entry's number on, which is not known before.
    """

    id: int
    conversation: ConversationId
    entry: NewEntry
    joined: UserId | None = None


class AnnouncementStore(Protocol):
    """The announcements that were written and not told yet. Every method raises BackendDown, DeadlineExceeded."""

    async def pending(self, limit: int) -> Sequence[Announcement]:
        """The oldest ones of all conversations, ascending by id."""
        ...

    async def pending_of(self, conversation: ConversationId) -> Sequence[Announcement]:
        """Those of one conversation, ascending by id."""
        ...

    async def done(self, announcement: Announcement, sequence: int) -> None:
        """It is entry `sequence` now: forget it, and in the same step let `joined` read from there on.

        A membership that has its number keeps it, and one that began anew after this announcement waits for its own. Idempotent.
        """
        ...


class Announcer:
    """Appends what was announced, in each conversation in the order in which it was written."""

    def __init__(self, outbox: AnnouncementStore, append: Callable[[ConversationId, NewEntry], Awaitable[Receipt]]) -> None:
        self._outbox = outbox
        self._append = append

    async def flush(self, conversation: ConversationId) -> None:
        """Append what `conversation` has pending; when it returns, all that was written before the call is in the log.

        Raises: Unavailable (what is left is swept up later). Cancellation: likewise.
        """
        for announcement in await self._outbox.pending_of(conversation):
            await self._tell(announcement)

    async def sweep(self) -> bool:
        """Append what is pending anywhere. False: something is left, come back soon. Raises: Unavailable (cannot be read)."""
        found = await self._outbox.pending(SWEEP_MAX)
        stuck: dict[ConversationId, Unavailable] = {}
        for announcement in found:
            if announcement.conversation in stuck:
                continue  # order within a conversation
            try:
                await self._tell(announcement)
            except Unavailable as error:
                stuck[announcement.conversation] = error
        return not stuck and len(found) < SWEEP_MAX

    async def _tell(self, announcement: Announcement) -> None:
        receipt = await self._append(announcement.conversation, announcement.entry)
        await self._outbox.done(announcement, receipt.entry.sequence)
