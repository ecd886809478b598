"""What a database transaction has to say in a log: written beside the rows it is about, appended afterwards, once.

The log may live elsewhere than the rows, so no transaction spans both. A feature that changes rows writes its announcements in
that very transaction and then says `flush`; what a crash, a cancelled request or an unreachable log left behind is found by
`sweep`. The entry's key makes telling it twice the same as once.

The steps of telling, each of which may be the last one before a crash: append the entry; keep its number with the membership
that begins with it, which may read from there on; tell the nodes (`told`); forget the announcement. The row goes last, so
whatever was interrupted is done again from the beginning, and every step bears that. Who joined may read before any node hears
of it, so that nobody is told in vain.

Many are told together: a run of joins, or of leaves, is about people who have nothing to do with one another (between two
joins of one person stands a leave, which ends the run), so its entries are appended at the same time and share transactions. What
depends on what stands before it is told alone, after that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Protocol

from secureconnect.errors import Unavailable
from secureconnect.features.log.model import MEMBER_JOINED, MEMBER_LEFT, NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.ids import ConversationId, UserId

SWEEP_MAX: Final = 256
"""Announcements of one sweep; more are left, and the sweep says so."""
TOGETHER_MAX: Final = 64
"""Announcements told together: what the pipeline writes in one group (`lanes.Limits.group_max`), and a quarter of a lane, so that
people's messages find room beside them."""
_INDEPENDENT: Final = (MEMBER_JOINED, MEMBER_LEFT)


@dataclass(frozen=True, slots=True)
class Announcement:
    """An entry that waits for its way into the log. It is about no message, so the log cannot refuse it.

    `id` grows in the order of writing. `joined`: the member whose membership begins with this entry. Where in the log that is,
    and where she may read from unless she may read all, is not known before the entry has its number.
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

    async def show(self, numbered: Sequence[tuple[Announcement, int]]) -> None:
        """These are entries of the numbers beside them: there each `joined` began, and may read from. They stay pending.

        A membership that has its number keeps it, one that began anew after its announcement waits for its own, and an
        announcement that is pending no more has no effect. All or nothing; idempotent.
        """
        ...

    async def done(self, told: Sequence[Announcement]) -> None:
        """Forget these, all or none. Idempotent."""
        ...


class Announcer:
    """Appends what was announced, in each conversation in the order in which it was written.

    `append` stores entries in their order and returns their receipts; when it raises, any of them may be stored.
    `told` is awaited with what is in the log now, once or more often, before it is forgotten: signals to all nodes go out there.
    """

    def __init__(
        self,
        outbox: AnnouncementStore,
        append: Callable[[ConversationId, Sequence[NewEntry]], Awaitable[Sequence[Receipt]]],
        *,
        told: Callable[[Sequence[Announcement]], Awaitable[None]],
    ) -> None:
        self._outbox = outbox
        self._append = append
        self._told = told

    async def flush(self, conversation: ConversationId) -> None:
        """Tell what `conversation` has pending; when it returns, all that was written before the call is in the log.

        Raises: Unavailable (what is left is swept up later). Cancellation: likewise.
        """
        await self._tell(await self._outbox.pending_of(conversation))

    async def sweep(self) -> bool:
        """Tell what is pending anywhere. False: something is left, come back soon. Raises: Unavailable (cannot be read)."""
        found = await self._outbox.pending(SWEEP_MAX)
        by_conversation: dict[ConversationId, list[Announcement]] = {}
        for announcement in found:
            by_conversation.setdefault(announcement.conversation, []).append(announcement)
        is_stuck = False
        for announcements in by_conversation.values():
            try:
                await self._tell(announcements)
            except Unavailable:
                is_stuck = True  # the rest of this conversation waits: order
        return not is_stuck and len(found) < SWEEP_MAX

    async def _tell(self, announcements: Sequence[Announcement]) -> None:
        """All of one conversation, ascending."""
        for group in together(announcements):
            receipts = await self._append(group[0].conversation, [announcement.entry for announcement in group])
            numbers = [receipt.entry.sequence for receipt in receipts]
            if any(announcement.joined is not None for announcement in group):
                await self._outbox.show(list(zip(group, numbers, strict=True)))
            await self._told(group)
            await self._outbox.done(group)


def together(announcements: Sequence[Announcement]) -> Iterator[Sequence[Announcement]]:
    """Groups that may be told at the same time, in order: up to `TOGETHER_MAX` joins or leaves, anything else alone."""
    for kind, run in groupby(announcements, key=lambda announcement: announcement.entry.kind):
        found, size = list(run), TOGETHER_MAX if kind in _INDEPENDENT else 1
        for begin in range(0, len(found), size):
            yield found[begin : begin + size]
