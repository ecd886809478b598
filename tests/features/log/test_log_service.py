"""The log as features see it, over a real hub: one way in, one way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from secureconnect.backends.appends import run_appends
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.errors import BackendDown, Overloaded
from secureconnect.features.log.model import MEMBER_JOINED, MESSAGE_CREATED, Entry, Head, LogPage, NewEntry
from secureconnect.features.log.service import Log
from secureconnect.features.log.source import LogSource, item_of
from secureconnect.hub import Frame, Full, Hub, Item, Page, SourceAway
from secureconnect.ids import ConversationId, MessageId, UserId

C = ConversationId("c")
CHANNEL = "conversation:c"


def message(key: str) -> NewEntry:
    return NewEntry(key, MESSAGE_CREATED, b'{"text":"hi"}', UserId("ada"), 0, MessageId(key))


class Heard:
    """A connection's sink with room for everything."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        self.frames += frames
        return True

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        raise AssertionError("there is always room")

    def hang_up(self, reason: str) -> None:
        raise AssertionError(reason)


@asynccontextmanager
async def running(store: MemoryLogStore) -> AsyncIterator[tuple[Log, Hub]]:
    hub = Hub(node="n", sources={"conversation:": LogSource(store)}, random=lambda: 0.5)
    log = Log(store, hub, now_s=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        await nursery.start(run_appends, log.pipeline)
        yield log, hub
        nursery.cancel_scope.cancel()


async def test_an_append_reaches_who_listens_in_the_envelope_that_the_log_reads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(MemoryLogStore()) as (log, hub):
        heard = Heard()
        peer = hub.connect(heard)
        await peer.prepare(CHANNEL)
        peer.start([CHANNEL])
        receipt = await log.append(C, message("a"))
        await trio.testing.wait_all_tasks_blocked()
        (entry,) = (await log.read(C, 0, 10)).entries
        assert receipt.entry == entry
        assert [frame.payload for frame in heard.frames] == [entry.envelope()]
        assert entry.envelope() == (
            b'{"event":"message.created","channel":"conversation:c","sequence":1,'
            b'"data":{"sequence":1,"message_number":1,"text":"hi"}}'
        )
        assert (receipt.ack, receipt.duplicate) == ("stored", False)
        peer.close()


async def test_a_repeated_send_is_answered_by_its_first_entry_and_heard_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running(MemoryLogStore()) as (log, hub):
        heard = Heard()
        peer = hub.connect(heard)
        await peer.prepare(CHANNEL)
        peer.start([CHANNEL])
        first = await log.append(C, message("a"))
        async with trio.open_nursery() as nursery:  # one group: b is new, a is not
            nursery.start_soon(log.append, C, message("b"))
            again = await log.append(C, message("a"))
        await trio.testing.wait_all_tasks_blocked()
        assert (again.entry, again.duplicate) == (first.entry, True)
        assert [frame.position for frame in heard.frames] == [1, 2]
        peer.close()


class Channels:
    """The hub's side, written down."""

    def __init__(self) -> None:
        self.is_full = False
        self.reserved = 0
        self.committed: list[tuple[str, list[int], int]] = []

    async def reserve(self, channel: str) -> Channels:
        await trio.lowlevel.checkpoint()
        if self.is_full:
            raise Full(channel)
        return self

    def __enter__(self) -> None:
        self.reserved += 1

    def __exit__(self, *_: object) -> None:
        self.reserved -= 1

    def commit(self, channel: str, items: Sequence[Item]) -> None:
        self.committed.append((channel, [item.sequence for item in items], self.reserved))


async def test_a_full_channel_refuses_with_nothing_stored() -> None:
    store, channels = MemoryLogStore(), Channels()
    channels.is_full = True
    log = Log(store, channels, now_s=trio.current_time)
    with pytest.raises(Overloaded) as caught:
        await log.append(C, message("a"))
    assert caught.value.details == {"channel": CHANNEL}
    assert (await store.read(C, 0, 1)).head == Head()


async def test_room_is_held_until_the_hub_knows_of_the_entry_and_given_back_then() -> None:
    channels = Channels()
    log = Log(MemoryLogStore(), channels, now_s=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_appends, log.pipeline)
        await log.append(C, message("a"))
        nursery.cancel_scope.cancel()
    assert channels.committed == [(CHANNEL, [1], 1)]
    assert channels.reserved == 0


async def test_the_hub_gets_numbers_ascending_and_each_once_whatever_was_repeated() -> None:
    store, channels = MemoryLogStore(), Channels()
    await store.append(C, [message("a"), message("b")])
    log = Log(store, channels, now_s=trio.current_time)
    async with trio.open_nursery() as nursery:
        for key in ("new", "b", "a"):
            nursery.start_soon(log.append, C, message(key))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run_appends, log.pipeline)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [numbers for _, numbers, _ in channels.committed] == [[1, 2, 3]]


async def test_a_source_shows_the_log_and_its_ends() -> None:
    store = MemoryLogStore()
    await store.append(C, [message("a"), NewEntry("j", MEMBER_JOINED, b"{}", UserId("ada"), 0)])
    source = LogSource(store)
    page = await source.read(CHANNEL, 1, 10)
    assert (page.tail, page.first, [item.sequence for item in page.items]) == (2, 1, [2])
    assert page.items[0].frame.event == MEMBER_JOINED
    assert await source.read("conversation:unknown", 0, 10) == Page((), 0, 1)
    assert await source.heads([CHANNEL, "conversation:unknown"]) == {CHANNEL: 2}


class Away(MemoryLogStore):
    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage:
        await trio.lowlevel.checkpoint()
        raise BackendDown("sql")

    async def heads(self, conversations: Sequence[ConversationId]) -> dict[ConversationId, Head]:
        await trio.lowlevel.checkpoint()
        raise BackendDown("sql")


async def test_a_store_that_is_away_is_a_source_that_is_away() -> None:
    source = LogSource(Away())
    with pytest.raises(SourceAway):
        await source.read(CHANNEL, 0, 1)
    with pytest.raises(SourceAway):
        await source.heads([CHANNEL])


def test_an_item_carries_its_entry_encoded() -> None:
    entry = Entry(C, 7, 3, MESSAGE_CREATED, b'{"text":"hi"}', "a", UserId("ada"), 0, MessageId("a"))
    item = item_of(entry)
    assert (item.sequence, item.frame.payload, item.frame.channel) == (7, entry.envelope(), CHANNEL)
    assert (item.frame.event, item.frame.position) == (MESSAGE_CREATED, 7)
