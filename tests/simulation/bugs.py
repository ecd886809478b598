"""Bugs that the simulator must find: each stands where a developer could make it, and is put in from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from anyio.lowlevel import checkpoint

from secureconnect.backends import appends
from secureconnect.backends.memory import log as memory_log
from secureconnect.features.log.draft import Draft, draft
from secureconnect.features.log.lanes import Call
from secureconnect.features.log.model import Appended, Entry, NewEntry
from secureconnect.features.log.pipeline import Pipeline
from secureconnect.features.log.service import Log, Receipt
from secureconnect.hub import Item
from secureconnect.hub import peer as hub_peer
from secureconnect.hub.feed import Feed
from secureconnect.hub.outbox import Outbox
from secureconnect.hub.place import Place, place_in_log
from secureconnect.ids import ConversationId, MessageId

BUGS = (
    "lost on reconnect",
    "missing deadline",
    "unbounded queue",
    "retry without key",
    "publish out of order",
    "cancelled between commit and publish",
)


@contextmanager
def planted(bug: str | None) -> Iterator[None]:
    """The product with one bug more. None: as it is."""
    if bug is None:
        yield
        return
    with _PATCHES[bug]():
        yield


@contextmanager
def _lost_on_reconnect() -> Iterator[None]:
    """Who comes back says where it was and is joined at the tail."""

    def at_the_tail(after: int | str | None, **known: Any) -> tuple[Place, int]:  # noqa: ANN401  # passed through
        place, _ = place_in_log(after, **known)
        return place, int(place.position)

    with patch.object(hub_peer, "place_in_log", at_the_tail):
        yield


@contextmanager
def _missing_deadline() -> Iterator[None]:
    """An append waits for the store as long as the store likes."""

    async def attempt(pipeline: Pipeline, call: Call, attempt_s: float) -> None:
        await pipeline.attempt(call)

    with patch.object(appends, "_attempt", attempt):
        yield


@contextmanager
def _unbounded_queue() -> Iterator[None]:
    """The line in front of a slow socket takes everything."""
    with patch.object(Outbox, "fits", lambda self, messages, size, droppable=False: True):
        yield


@contextmanager
def _retry_without_key() -> Iterator[None]:
    """What was stored under a key is not looked for, so a retry stores it again."""

    def forgetful(entries: Sequence[NewEntry], *, known: Mapping[str, Entry], deleted: Mapping[MessageId, bool]) -> Draft:
        return draft(entries, known={}, deleted=deleted)

    with patch.object(memory_log, "draft", forgetful):
        yield


@contextmanager
def _publish_out_of_order() -> Iterator[None]:
    """What comes over the bus is passed on as it comes."""

    def pass_anything(self: Feed, item: Item, passed: list[Item]) -> bool:
        if self.cursor is None:
            return False
        if item.sequence <= self.cursor:
            return True
        self.room.take(item)
        self.cursor = item.sequence
        passed.append(item)
        return True

    with patch.object(Feed, "_pass", pass_anything):
        yield


@contextmanager
def _cancelled_between() -> Iterator[None]:
    """The requester publishes what was stored for it; when it is cancelled, nobody does."""
    stored = Log._stored

    def nothing(self: Log, conversation: ConversationId, appended: Sequence[Appended]) -> None:
        """The pipeline leaves it to the requester."""

    async def append(self: Log, conversation: ConversationId, entry: NewEntry) -> Receipt:
        appended = await self.pipeline.append(conversation, entry)
        await checkpoint()
        stored(self, conversation, [appended])
        return Receipt("stored", appended.entry, appended.duplicate)

    with patch.object(Log, "_stored", nothing), patch.object(Log, "append", append):
        yield


_PATCHES = dict(
    zip(
        BUGS,
        (_lost_on_reconnect, _missing_deadline, _unbounded_queue, _retry_without_key, _publish_out_of_order, _cancelled_between),
        strict=True,
    )
)
