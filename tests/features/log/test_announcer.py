"""Announcements on their way into the log: in order, once, whatever was interrupted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from secureconnect.backends.appends import Deadlines, run_announcements
from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.errors import BackendDown
from secureconnect.features.log.announcer import SWEEP_MAX, Announcement, Announcer
from secureconnect.features.log.model import MEMBER_JOINED, NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.ids import ConversationId, UserId

HERE, THERE = ConversationId("here"), ConversationId("there")
ADA = UserId("ada")


def entry(key: str) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b"{}", ADA, 0)


class Outbox(MemoryAnnouncementStore):
    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    async def pending(self, limit: int) -> Sequence[Announcement]:
        if self.is_away:
            raise BackendDown("sql")
        return await super().pending(limit)


class World:
    """An announcer over memory stores; `away`: the logs that cannot be appended to now."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.log = MemoryLogStore()
        self.away: list[ConversationId] = []
        self.away_once: list[ConversationId] = []
        self.announcer = Announcer(self.outbox, self._append)

    def announce(self, conversation: ConversationId, *keys: str) -> None:
        self.outbox.insert(conversation, [(entry(key), None) for key in keys])

    async def _append(self, conversation: ConversationId, new: NewEntry) -> Receipt:
        if conversation in self.away or conversation in self.away_once:
            self.away_once = []
            raise BackendDown("log")
        (appended,) = await self.log.append(conversation, [new])
        return Receipt("stored", appended.entry, appended.duplicate)

    async def keys(self, conversation: ConversationId) -> list[str]:
        return [e.key for e in (await self.log.read(conversation, 0, 1_000)).entries]

    async def left(self) -> int:
        return len(await self.outbox.pending(1_000))


async def test_a_flush_tells_one_conversation_in_order_and_leaves_others() -> None:
    world = World()
    world.announce(HERE, "a", "b")
    world.announce(THERE, "x")
    await world.announcer.flush(HERE)
    assert await world.keys(HERE) == ["a", "b"]
    assert await world.keys(THERE) == []
    assert await world.left() == 1


async def test_flushes_at_the_same_time_tell_everything_once() -> None:
    world = World()
    world.announce(HERE, *"abcdef")
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(world.announcer.flush, HERE)
    assert await world.keys(HERE) == list("abcdef")
    assert await world.left() == 0


async def test_a_sweep_tells_all_that_was_left() -> None:
    world = World()
    world.announce(HERE, "a")
    world.announce(THERE, "x")
    assert await world.announcer.sweep()
    assert (await world.keys(HERE), await world.keys(THERE)) == (["a"], ["x"])


async def test_a_log_that_is_away_holds_up_only_its_own_announcements() -> None:
    world = World()
    world.away = [HERE]
    world.announce(HERE, "a", "b")
    world.announce(THERE, "x")
    assert not await world.announcer.sweep()
    assert await world.keys(THERE) == ["x"]
    world.away = []
    assert await world.announcer.sweep()
    assert await world.keys(HERE) == ["a", "b"]


async def test_nothing_overtakes_what_could_not_be_told() -> None:
    world = World()
    world.announce(HERE, "a", "b")
    world.away_once = [HERE]
    assert not await world.announcer.sweep()
    assert await world.keys(HERE) == []
    assert await world.announcer.sweep()
    assert await world.keys(HERE) == ["a", "b"]


async def test_a_sweep_is_bounded_and_says_when_more_is_left() -> None:
    world = World()
    world.announce(HERE, *map(str, range(SWEEP_MAX + 1)))
    assert not await world.announcer.sweep()
    assert await world.announcer.sweep()
    assert len(await world.keys(HERE)) == SWEEP_MAX + 1


async def test_what_was_told_by_a_former_life_is_not_told_twice() -> None:
    world = World()
    world.announce(HERE, "a")
    await world.log.append(HERE, [entry("a")])  # the crash came before `done`
    await world.announcer.sweep()
    assert await world.keys(HERE) == ["a"]
    assert await world.left() == 0


async def test_the_runner_tells_within_ten_seconds_what_nobody_flushed(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.outbox.is_away = True
    world.announce(HERE, "left by a former life")
    async with trio.open_nursery() as nursery:
        await nursery.start(run_announcements, world.announcer)
        await trio.sleep(3)
        world.outbox.is_away = False
        await trio.sleep(Deadlines().sweep_again_s + 0.1)
        assert await world.keys(HERE) == ["left by a former life"]
        world.announce(HERE, "its request was cancelled")
        await trio.sleep(10)
        assert len(await world.keys(HERE)) == 2
        nursery.cancel_scope.cancel()


async def test_a_flush_that_cannot_be_done_says_so() -> None:
    world = World()
    world.away = [HERE]
    world.announce(HERE, "a")
    with pytest.raises(BackendDown):
        await world.announcer.flush(HERE)
    assert await world.left() == 1
