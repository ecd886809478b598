"""Announcements on their way into the log: in order, once, whatever was interrupted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from secureconnect.backends.appends import Deadlines, run_announcements
from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.errors import BackendDown, OutcomeUnknown
from secureconnect.features.log.announcer import SWEEP_MAX, TOGETHER_MAX, Announcement, Announcer, together
from secureconnect.features.log.model import CONVERSATION_CHANGED, MEMBER_JOINED, MEMBER_LEFT, NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.ids import ConversationId, UserId

HERE, THERE = ConversationId("here"), ConversationId("there")
ADA = UserId("ada")


def entry(key: str, kind: str = CONVERSATION_CHANGED) -> NewEntry:
    return NewEntry(key, kind, b"{}", ADA, 0)


class Outbox(MemoryAnnouncementStore):
    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.shown: dict[UserId, int] = {}
        self.show_from = lambda _, user, sequence: self.shown.update({user: self.shown.get(user, sequence)})

    async def pending(self, limit: int) -> Sequence[Announcement]:
        if self.is_away:
            raise BackendDown("sql")
        return await super().pending(limit)


class World:
    """An announcer over memory stores; `away`: the logs that cannot be appended to now; `told`: keys, in order."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.log = MemoryLogStore()
        self.away: list[ConversationId] = []
        self.away_once: list[ConversationId] = []
        self.appends = 0
        self.told: list[str] = []
        self.announcer = Announcer(self.outbox, self.append, told=self.tell)

    def announce(self, conversation: ConversationId, *keys: str, kind: str = CONVERSATION_CHANGED) -> None:
        self.outbox.insert(conversation, [(entry(key, kind), None) for key in keys])

    async def append(self, conversation: ConversationId, new: Sequence[NewEntry]) -> Sequence[Receipt]:
        if conversation in self.away or conversation in self.away_once:
            self.away_once = []
            raise BackendDown("log")
        self.appends += 1
        return [Receipt("stored", one.entry, one.duplicate) for one in await self.log.append(conversation, new)]

    async def tell(self, announcements: Sequence[Announcement]) -> None:
        await trio.lowlevel.checkpoint()
        self.told += [announcement.entry.key for announcement in announcements]

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
    await world.log.append(HERE, [entry("a")])  # the crash came behind the append
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


async def test_joins_are_appended_together_and_in_order() -> None:
    world = World()
    people = [UserId(f"{n:03}") for n in range(TOGETHER_MAX * 2 + 1)]
    world.outbox.insert(HERE, [(entry(person, MEMBER_JOINED), person) for person in people])
    await world.announcer.flush(HERE)
    assert await world.keys(HERE) == people
    assert world.appends == 3
    assert world.outbox.shown == {person: number for number, person in enumerate(people, 1)}
    assert world.told == people


def test_only_what_depends_on_nothing_before_it_is_told_together() -> None:
    kinds = [MEMBER_JOINED, MEMBER_JOINED, MEMBER_LEFT, MEMBER_JOINED, CONVERSATION_CHANGED, CONVERSATION_CHANGED, MEMBER_LEFT]
    written = [Announcement(place, HERE, entry(str(place), kind)) for place, kind in enumerate(kinds)]
    assert [[announcement.id for announcement in group] for group in together(written)] == [[0, 1], [2], [3], [4], [5], [6]]
    crowd = [Announcement(place, HERE, entry(str(place), MEMBER_LEFT)) for place in range(TOGETHER_MAX + 1)]
    assert [len(group) for group in together(crowd)] == [TOGETHER_MAX, 1]
    assert list(together([])) == []


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["append", "show", "tell", "done"])
async def test_a_crash_before_or_after_any_step_tells_everything_and_stores_it_once(step: str, *, done: bool) -> None:
    world = World()
    world.outbox.insert(HERE, [(entry(name, MEMBER_JOINED), UserId(name)) for name in ("ada", "bob")])
    world.announce(HERE, "later")
    owner = world if step in ("append", "tell") else world.outbox
    real, is_down = getattr(owner, step), True

    async def crash(*args: object) -> object:
        nonlocal is_down
        result = await real(*args) if done or not is_down else None
        if not is_down:
            return result
        is_down = False
        raise OutcomeUnknown

    if step in ("show", "done"):
        setattr(world.outbox, step, crash)
    announcer = Announcer(
        world.outbox,
        crash if step == "append" else world.append,  # type: ignore[arg-type]  # any step's arguments pass through
        told=crash if step == "tell" else world.tell,  # type: ignore[arg-type]
    )
    with pytest.raises(OutcomeUnknown):
        await announcer.flush(HERE)
    assert await announcer.sweep()
    assert await world.keys(HERE) == ["ada", "bob", "later"]
    assert world.outbox.shown == {"ada": 1, "bob": 2}
    assert list(dict.fromkeys(world.told)) == ["ada", "bob", "later"]
    assert await world.left() == 0


async def test_who_joined_may_read_before_anybody_hears_of_it() -> None:
    world = World()
    world.outbox.insert(HERE, [(entry("ada", MEMBER_JOINED), ADA)])
    seen: list[int | None] = []

    async def told(announcements: Sequence[Announcement]) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(world.outbox.shown.get(ADA))

    await Announcer(world.outbox, world.append, told=told).flush(HERE)
    assert seen == [1]
