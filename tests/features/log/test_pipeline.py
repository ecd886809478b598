"""The append pipeline on a store that is slow, away, or does not say what it did; the clock is virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from secureconnect.backends.appends import run_appends
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.errors import BackendDown, OutcomeUnknown, Overloaded, StorageFull
from secureconnect.features.log.lanes import LIMITS, Limits
from secureconnect.features.log.model import MESSAGE_CREATED, MESSAGE_EDITED, Appended, NewEntry
from secureconnect.features.log.pipeline import Pipeline
from secureconnect.features.log.store import EntryRefused
from secureconnect.ids import ConversationId, MessageId, UserId

C = ConversationId("c")
ADA = UserId("ada")


def message(key: str) -> NewEntry:
    return NewEntry(key, MESSAGE_CREATED, b"{}", ADA, 0, MessageId(key))


class Trouble(MemoryLogStore):
    """A log store with a script: what happens to the next calls. It counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[str] = []
        self.calls: list[list[str]] = []
        self.at_once = self.at_once_max = 0

    async def append(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        self.calls.append([entry.key for entry in entries])
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            return await self._played(self.script.pop(0) if self.script else "", conversation, entries)
        finally:
            self.at_once -= 1

    async def _played(self, part: str, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Appended]:
        match part:
            case "slow":
                await trio.sleep(1)
            case "hang":
                await trio.sleep_forever()
            case "stored, then hang":
                await super().append(conversation, entries)
                await trio.sleep_forever()
            case "stored, not told":
                await super().append(conversation, entries)
                raise OutcomeUnknown
            case "not stored, not told":
                raise OutcomeUnknown
            case "full":
                raise StorageFull("sql")
            case "away":
                raise BackendDown("sql")
            case "bug":
                raise KeyError("bug")
        return await super().append(conversation, entries)


class Node:
    """A pipeline over a troubled store, and what it fed."""

    def __init__(self, limits: Limits) -> None:
        self.store = Trouble()
        self.fed: list[tuple[str, int]] = []
        self.pipeline = Pipeline(self.store, self._feed, now_s=trio.current_time, limits=limits)

    def _feed(self, conversation: ConversationId, appended: Sequence[Appended]) -> None:
        self.fed += [(a.entry.key, a.entry.sequence) for a in appended]

    async def append(self, *keys: str, conversation: ConversationId = C) -> dict[str, Appended | Exception]:
        """Append each by a task of its own, in this order; the answers."""
        answers: dict[str, Appended | Exception] = {}

        async def one(key: str) -> None:
            try:
                answers[key] = await self.pipeline.append(conversation, message(key))
            except (EntryRefused, OutcomeUnknown, BackendDown, Overloaded, KeyError) as error:
                answers[key] = error

        async with trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(one, key)
                await trio.testing.wait_all_tasks_blocked()
        return answers


@asynccontextmanager
async def running(limits: Limits = LIMITS) -> AsyncIterator[Node]:
    node = Node(limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(run_appends, node.pipeline)
        yield node
        nursery.cancel_scope.cancel()


def sequences(answers: dict[str, Appended | Exception]) -> dict[str, int]:
    return {key: answer.entry.sequence for key, answer in answers.items() if isinstance(answer, Appended)}


async def test_what_comes_while_one_is_stored_is_the_next_group(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node:
        node.store.script = ["slow"]
        assert sequences(await node.append("a", "b", "c")) == {"a": 1, "b": 2, "c": 3}
        assert node.store.calls == [["a"], ["b", "c"]]
        assert node.fed == [("a", 1), ("b", 2), ("c", 3)]
        assert node.store.at_once_max == 1


async def test_conversations_are_stored_in_parallel(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node, trio.open_nursery() as nursery:
        node.store.script = ["slow"] * 10
        for n in range(10):
            nursery.start_soon(node.pipeline.append, ConversationId(str(n)), message("a"))
        await trio.sleep(0.5)
        assert node.store.at_once_max == 10


LOST_ANSWERS = ["hang", "stored, then hang", "stored, not told", "not stored, not told"]


@pytest.mark.parametrize("trouble", LOST_ANSWERS)
async def test_a_lost_answer_is_found_out_and_the_entry_is_there_once(
    autojump_clock: trio.testing.MockClock, trouble: str
) -> None:
    async with running() as node:
        node.store.script = [trouble, trouble]
        assert sequences(await node.append("a")) == {"a": 1}
        assert node.store.calls == [["a"]] * 3
        assert node.fed == [("a", 1)]
        assert (await node.store.read(C, 0, 10)).head.tail == 1


async def test_later_ones_wait_behind_what_is_unknown(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node:
        node.store.script = ["not stored, not told"] * 3
        assert sequences(await node.append("a", "b")) == {"a": 1, "b": 2}
        assert node.fed == [("a", 1), ("b", 2)]


async def test_a_store_that_hangs_for_long_is_told_as_unknown_and_fed_when_it_is_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as node:
        node.store.script = ["hang"] * 8
        before = trio.current_time()
        answers = await node.append("a")
        assert isinstance(answers["a"], OutcomeUnknown)
        assert trio.current_time() - before == pytest.approx(5.0)
        assert node.fed == []
        await trio.sleep(20)
        assert node.fed == [("a", 1)]
        repeated = (await node.append("a"))["a"]
        assert isinstance(repeated, Appended)
        assert repeated.duplicate


async def test_a_cancelled_requester_leaves_commit_and_feed_together(autojump_clock: trio.testing.MockClock) -> None:
    """The planted bug `cancelled between commit and publish` has no place to be: the requester does neither."""
    async with running() as node:
        node.store.script = ["slow"]
        with trio.move_on_after(0.5):
            await node.pipeline.append(C, message("a"))
        assert node.fed == []
        await trio.sleep(1)
        assert node.fed == [("a", 1)]


async def test_a_cancelled_requester_whose_append_has_not_begun_takes_it_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as node, trio.open_nursery() as nursery:
        node.store.script = ["slow"]
        nursery.start_soon(node.append, "a")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await node.pipeline.append(C, message("b"))
        await trio.sleep(1)
        assert node.store.calls == [["a"]]


async def test_an_entry_stays_while_one_of_its_requesters_does(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node, trio.open_nursery() as nursery:
        node.store.script = ["slow"]
        nursery.start_soon(node.append, "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(node.append, "b")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await node.pipeline.append(C, message("b"))
        await trio.sleep(1)
        assert node.fed == [("a", 1), ("b", 2)]


async def test_one_refused_entry_does_not_spoil_its_group(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node, trio.open_nursery() as nursery:
        node.store.script = ["slow"]
        refused = NewEntry("edit", MESSAGE_EDITED, b"{}", ADA, 0, MessageId("nothing"))
        nursery.start_soon(node.append, "a", "b")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(EntryRefused):
            await node.pipeline.append(C, refused)
        await node.append("c")
        assert node.fed == [("a", 1), ("b", 2), ("c", 3)]


@pytest.mark.parametrize(("trouble", "error"), [("full", StorageFull), ("away", BackendDown), ("bug", KeyError)])
async def test_what_was_not_stored_is_told_at_once_and_the_next_goes_on(
    autojump_clock: trio.testing.MockClock, trouble: str, error: type[Exception]
) -> None:
    async with running() as node:
        node.store.script = [trouble]
        before = trio.current_time()
        assert isinstance((await node.append("a"))["a"], error)
        assert trio.current_time() == before
        assert sequences(await node.append("b")) == {"b": 1}


async def test_two_requests_for_one_key_are_one_entry_and_the_second_is_told_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[Appended] = []

    async def one(node: Node) -> None:
        told.append(await node.pipeline.append(C, message("a")))

    async with running() as node:
        node.store.script = ["slow"]
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(one, node)
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(appended.duplicate for appended in told) == [False, True]
        assert node.fed == [("a", 1)]


async def test_a_key_stored_before_is_fed_again(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever missed it, by a crash between commit and publish, gets it now; the feed drops it for all others."""
    async with running() as node:
        await node.append("a", "b")
        repeated = (await node.append("a"))["a"]
        assert isinstance(repeated, Appended)
        assert (repeated.entry.sequence, repeated.duplicate) == (1, True)
        assert node.fed == [("a", 1), ("b", 2), ("a", 1)]


async def test_a_full_lane_refuses_with_nothing_stored(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Limits(lane_max=2)) as node:
        node.store.script = ["slow"]
        answers = await node.append("a", "b", "c")
        assert isinstance(answers["c"], Overloaded)
        assert node.fed == [("a", 1), ("b", 2)]
        assert node.pipeline.statistics().full_total == 1


async def test_when_the_runner_ends_nobody_is_left_waiting(autojump_clock: trio.testing.MockClock) -> None:
    answers: dict[str, Appended | Exception] = {}

    async def ask(node: Node) -> None:
        answers.update(await node.append("begun", "waiting"))

    node = Node(Limits(group_max=1))
    node.store.script = ["hang"]
    async with trio.open_nursery() as requesters, trio.open_nursery() as nursery:
        await nursery.start(run_appends, node.pipeline)
        requesters.start_soon(ask, node)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert isinstance(answers["begun"], OutcomeUnknown)
    assert isinstance(answers["waiting"], BackendDown)
    with pytest.raises(BackendDown):
        await node.pipeline.append(C, message("late"))


async def test_nothing_is_left_of_what_is_done(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node:
        node.store.script = ["hang", "full", "not stored, not told"]
        await node.append(*map(str, range(20)))
        statistics = node.pipeline.statistics()
        assert (statistics.entries, statistics.bytes, statistics.calls) == (0, 0, 0)


async def test_an_entry_that_cannot_be_right_is_refused_where_it_is_made(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as node:
        with pytest.raises(AssertionError):
            await node.pipeline.append(C, NewEntry("key", MESSAGE_CREATED, b"{}", ADA, 0, MessageId("id")))
        assert node.store.calls == []
