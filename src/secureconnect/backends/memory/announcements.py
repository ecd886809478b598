"""Announcements in memory: beside the conversations that write them, told afterwards like those of a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from trio.lowlevel import checkpoint

from secureconnect.features.log.announcer import Announcement
from secureconnect.features.log.model import NewEntry
from secureconnect.ids import ConversationId, UserId


class MemoryAnnouncementStore:
    """`AnnouncementStore`, and the door for the store of conversations.

    `show_from(conversation, user, sequence)` is that store's: a membership without a number began at `sequence`, and reads from
    there unless it may read all; one that has its number keeps it. Synchronous, so that `show` is one step.
    """

    def __init__(self) -> None:
        self.show_from: Callable[[ConversationId, UserId, int], None] | None = None
        self._rows: dict[int, Announcement] = {}
        self._last = 0

    def insert(self, conversation: ConversationId, entries: Sequence[tuple[NewEntry, UserId | None]]) -> None:
        """Announce `entries`, each with whose membership it begins, in the same synchronous step as their change."""
        for entry, joined in entries:
            assert entry.message is None, "what is about a message could be refused by the log"
            self._last += 1
            self._rows[self._last] = Announcement(self._last, conversation, entry, joined)

    async def pending(self, limit: int) -> Sequence[Announcement]:
        await checkpoint()
        return list(islice(self._rows.values(), limit))

    async def pending_of(self, conversation: ConversationId) -> Sequence[Announcement]:
        await checkpoint()
        return [row for row in self._rows.values() if row.conversation == conversation]

    async def show(self, numbered: Sequence[tuple[Announcement, int]]) -> None:
        await checkpoint()
        for announcement, sequence in numbered:
            if announcement.joined is not None and self._is_latest(announcement):
                assert self.show_from is not None, "the store of conversations says how"
                self.show_from(announcement.conversation, announcement.joined, sequence)

    async def done(self, told: Sequence[Announcement]) -> None:
        await checkpoint()
        for announcement in told:
            self._rows.pop(announcement.id, None)

    def _is_latest(self, told: Announcement) -> bool:
        """Whether it is pending, and nobody has joined anew since."""
        whom = (told.conversation, told.joined)
        ids = [row.id for row in self._rows.values() if (row.conversation, row.joined) == whom]
        return max(ids, default=0) == told.id
