"""Many entries of one log at once: appends that wait together share the store's transactions.

An owner of tasks, because a feature may not have any: each entry is a request of its own to the log and waits for its own result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from secureconnect.errors import SecureConnectError
from secureconnect.features.log.model import NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.ids import ConversationId


async def append_together(
    append: Callable[[ConversationId, NewEntry], Awaitable[Receipt]], conversation: ConversationId, entries: Sequence[NewEntry]
) -> Sequence[Receipt]:
    """Append `entries` through `append`, begun in their order in one turn of the event loop; their receipts in that order.

    Raises: the first of the errors, when all have ended; the others may be stored. Cancellation: as of each append.
    """
    todo = iter(enumerate(entries))
    receipts: dict[int, Receipt] = {}
    errors: list[SecureConnectError] = []

    async def one() -> None:
        place, entry = next(todo)  # tasks begin in any order, entries in theirs
        try:
            receipts[place] = await append(conversation, entry)
        except SecureConnectError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in entries:
            tasks.start_soon(one)
    if errors:
        raise errors[0]
    return [receipts[place] for place in range(len(entries))]
