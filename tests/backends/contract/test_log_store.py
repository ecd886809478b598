"""The conversation log: what every implementation of LogStore must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.backends.sql.engine import Engine
from secureconnect.backends.sql.log import SqlLogStore
from secureconnect.features.log.model import (
    MEMBER_JOINED,
    MESSAGE_CREATED,
    MESSAGE_DELETED,
    MESSAGE_EDITED,
    Entry,
    Head,
    LogPage,
    NewEntry,
)
from secureconnect.features.log.store import EntryRefused, LogStore
from secureconnect.ids import ConversationId, MessageId, UserId

HERE = ConversationId("here")
THERE = ConversationId("there")
ADA = UserId("ada")
EMPTY = LogPage((), Head())


@pytest.fixture
def store(engine: Engine | None) -> LogStore:
    return MemoryLogStore() if engine is None else SqlLogStore(engine)


def message(key: str, text: str = "hello") -> NewEntry:
    return NewEntry(key, MESSAGE_CREATED, b'{"text":"%b"}' % text.encode(), ADA, at_us=1, message=MessageId(key))


def joined(key: str) -> NewEntry:
    return NewEntry(key, MEMBER_JOINED, b'{"user":"bob"}', ADA, at_us=2)


def edit(key: str, of: str, text: str) -> NewEntry:
    body = b'{"text":"%b"}' % text.encode()
    return NewEntry(key, MESSAGE_EDITED, b'{"edit":"%b"}' % text.encode(), ADA, 3, MessageId(of), replacement=body)


def deletion(key: str, of: str) -> NewEntry:
    return NewEntry(
        key, MESSAGE_DELETED, b"{}", ADA, 4, MessageId(of), replacement=b'{"deleted":true}', redaction=b'{"redacted":true}'
    )


def numbers(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    return [(entry.sequence, entry.message_number) for entry in entries]


async def everything(store: LogStore, conversation: ConversationId = HERE) -> Sequence[Entry]:
    return (await store.read(conversation, 0, 1_000)).entries


async def test_sequences_are_dense_and_messages_have_numbers_of_their_own(store: LogStore) -> None:
    first = await store.append(HERE, [joined("j"), message("a"), message("b")])
    second = await store.append(HERE, [joined("k"), message("c")])
    assert numbers([a.entry for a in (*first, *second)]) == [(1, 0), (2, 1), (3, 2), (4, 0), (5, 3)]
    assert not any(a.duplicate for a in (*first, *second))


async def test_what_was_appended_is_read_as_it_was_given(store: LogStore) -> None:
    given = [joined("j"), message("a", "naïve \u2028 text")]
    appended = await store.append(HERE, given)
    read = await everything(store)
    assert list(read) == [a.entry for a in appended]
    for entry, new in zip(read, given, strict=True):
        assert entry.conversation == HERE
        assert (entry.key, entry.kind, entry.data) == (new.key, new.kind, new.data)
        assert (entry.actor, entry.at_us, entry.message) == (new.actor, new.at_us, new.message)


async def test_each_conversation_counts_for_itself(store: LogStore) -> None:
    await store.append(HERE, [message("a"), message("b")])
    (other,) = await store.append(THERE, [joined("a")])
    assert numbers([other.entry]) == [(1, 0)]
    assert numbers(await everything(store)) == [(1, 1), (2, 2)]


async def test_concurrent_appends_are_dense_and_each_group_stays_together(store: LogStore) -> None:
    async def append(name: str, conversation: ConversationId) -> None:
        await store.append(conversation, [message(f"{name}.{part}") for part in range(3)])

    async with trio.open_nursery() as nursery:
        for n in range(40):
            nursery.start_soon(append, str(n), (HERE, THERE)[n % 2])
    for conversation in (HERE, THERE):
        entries = await everything(store, conversation)
        assert numbers(entries) == [(n, n) for n in range(1, 61)]
        names = [entry.key.split(".")[0] for entry in entries]
        assert [names[n : n + 3] for n in range(0, 60, 3)] == [[name] * 3 for name in dict.fromkeys(names)]


async def test_a_key_that_is_stored_answers_its_first_entry_whatever_the_content(store: LogStore) -> None:
    (first,) = await store.append(HERE, [message("a", "first")])
    again = await store.append(HERE, [message("b"), message("a", "second")])
    assert [a.duplicate for a in again] == [False, True]
    assert again[1].entry == first.entry
    assert [entry.key for entry in await everything(store)] == ["a", "b"]


async def test_a_key_twice_in_one_call_is_stored_once(store: LogStore) -> None:
    appended = await store.append(HERE, [message("a", "first"), joined("j"), message("a", "second")])
    assert [(a.entry.sequence, a.duplicate) for a in appended] == [(1, False), (2, False), (1, True)]
    assert appended[2].entry.data == message("a", "first").data
    assert (await store.read(HERE, 0, 0)).head == Head(tail=2, messages=1)


async def test_a_call_of_stored_keys_only_changes_nothing(store: LogStore) -> None:
    await store.append(HERE, [message("a"), joined("j")])
    again = await store.append(HERE, [joined("j"), message("a")])
    assert [(a.entry.key, a.entry.sequence, a.duplicate) for a in again] == [("j", 2, True), ("a", 1, True)]
    assert (await store.read(HERE, 0, 0)).head == Head(tail=2, messages=1)


async def test_the_same_key_from_many_at_once_is_stored_once(store: LogStore) -> None:
    answers: list[tuple[int, bool]] = []

    async def append() -> None:
        (appended,) = await store.append(HERE, [message("a")])
        answers.append((appended.entry.sequence, appended.duplicate))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(append)
    assert sorted(answers) == [(1, False)] + [(1, True)] * 9


async def test_a_key_belongs_to_its_conversation(store: LogStore) -> None:
    await store.append(HERE, [joined("j")])
    (there,) = await store.append(THERE, [joined("j")])
    assert not there.duplicate


async def test_an_edit_replaces_what_is_read_and_what_is_replayed(store: LogStore) -> None:
    await store.append(HERE, [message("a", "old"), message("b")])
    await store.append(HERE, [edit("e", "a", "new")])
    created, _, edited = await everything(store)
    assert (created.data, edited.data) == (b'{"text":"new"}', b'{"edit":"new"}')
    assert (created.sequence, created.message_number, created.at_us) == (1, 1, 1), "it keeps its place and its time"
    assert await store.message(HERE, MessageId("a")) == created
    assert list(await store.messages(HERE, below=2, limit=9, floor=1)) == [created]


async def test_a_deletion_leaves_a_tombstone_and_empties_earlier_edits(store: LogStore) -> None:
    await store.append(HERE, [message("a"), message("b"), edit("e1", "a", "x"), edit("other", "b", "y"), edit("e2", "a", "z")])
    await store.append(HERE, [deletion("d", "a")])
    data = {entry.key: entry.data for entry in await everything(store)}
    assert data["a"] == b'{"deleted":true}'
    assert data["e1"] == data["e2"] == b'{"redacted":true}'
    assert (data["b"], data["other"], data["d"]) == (b'{"text":"y"}', b'{"edit":"y"}', b"{}")
    assert [m.key for m in await store.messages(HERE, below=None, limit=9, floor=1)] == ["b", "a"]


async def test_an_edit_and_a_deletion_may_come_in_the_group_of_their_message(store: LogStore) -> None:
    await store.append(HERE, [message("a"), edit("e", "a", "x"), deletion("d", "a")])
    assert [entry.data for entry in await everything(store)] == [b'{"deleted":true}', b'{"redacted":true}', b"{}"]


async def test_a_repeated_edit_is_not_applied_again(store: LogStore) -> None:
    await store.append(HERE, [message("a"), edit("e1", "a", "one"), edit("e2", "a", "two")])
    (again,) = await store.append(HERE, [edit("e1", "a", "one")])
    assert again.duplicate
    found = await store.message(HERE, MessageId("a"))
    assert found is not None
    assert found.data == b'{"text":"two"}'


def about_a_message_never_written() -> NewEntry:
    return edit("e", "nothing", "x")


def about_a_message_elsewhere() -> NewEntry:
    return edit("e", "elsewhere", "x")


def about_a_deleted_message() -> NewEntry:
    return edit("e", "gone", "x")


def a_second_deletion() -> NewEntry:
    return deletion("e", "gone")


REFUSED = (about_a_message_never_written, about_a_message_elsewhere, about_a_deleted_message, a_second_deletion)


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_is_refused_takes_its_whole_group_with_it(store: LogStore, refused: Callable[[], NewEntry]) -> None:
    await store.append(THERE, [message("elsewhere")])
    await store.append(HERE, [message("gone"), deletion("d", "gone")])
    before = await store.read(HERE, 0, 100)
    with pytest.raises(EntryRefused):
        await store.append(HERE, [message("new"), refused(), joined("j")])
    assert await store.read(HERE, 0, 100) == before
    assert await store.message(HERE, MessageId("new")) is None
    assert await store.locate(MessageId("new")) is None
    (after,) = await store.append(HERE, [message("new")])
    assert (after.entry.sequence, after.duplicate) == (3, False)


async def test_what_is_refused_in_one_conversation_does_not_touch_another(store: LogStore) -> None:
    refusals: list[EntryRefused] = []

    async def bad(n: int) -> None:
        try:
            await store.append(THERE, [message(f"m{n}"), edit(f"e{n}", "nothing", "x")])
        except EntryRefused as error:
            refusals.append(error)

    async def good(n: int) -> None:
        await store.append(HERE, [message(f"m{n}")])

    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(bad, n)
            nursery.start_soon(good, n)
    assert len(refusals) == 10
    assert numbers(await everything(store)) == [(n, n) for n in range(1, 11)]
    assert await store.read(THERE, 0, 10) == EMPTY


async def test_a_repeated_deletion_is_a_duplicate_not_a_refusal(store: LogStore) -> None:
    await store.append(HERE, [message("a"), deletion("d", "a")])
    (again,) = await store.append(HERE, [deletion("d", "a")])
    assert again.duplicate


async def test_a_page_begins_behind_after_and_brings_the_head(store: LogStore) -> None:
    await store.append(HERE, [message(f"m{n}") for n in range(1, 6)])
    head = Head(tail=5, messages=5)
    page = await store.read(HERE, 1, 2)
    assert ([entry.sequence for entry in page.entries], page.head) == ([2, 3], head)
    assert [entry.sequence for entry in (await store.read(HERE, 3, 100)).entries] == [4, 5]
    assert await store.read(HERE, 5, 10) == LogPage((), head)
    assert await store.read(HERE, 99, 10) == LogPage((), head)


async def test_limit_0_reads_only_the_head(store: LogStore) -> None:
    await store.append(HERE, [message("a"), joined("j")])
    assert await store.read(HERE, 0, 0) == LogPage((), Head(tail=2, messages=1))


async def test_an_unknown_conversation_is_an_empty_log(store: LogStore) -> None:
    assert await store.read(HERE, 0, 10) == EMPTY
    assert await store.read(HERE, 7, 0) == EMPTY
    assert list(await store.messages(HERE, below=None, limit=10, floor=1)) == []
    assert await store.message(HERE, MessageId("a")) is None
    assert await store.locate(MessageId("a")) is None


async def test_heads_of_many_in_one_call_without_the_unknown(store: LogStore) -> None:
    for n in range(70):
        await store.append(ConversationId(f"c{n}"), [joined("j"), message(f"m{n}")])
    asked = [ConversationId(f"c{n}") for n in range(75)]
    assert await store.heads(asked) == {conversation: Head(tail=2, messages=1) for conversation in asked[:70]}
    assert await store.heads([]) == {}


async def test_messages_come_newest_first_below_a_number_and_not_under_the_floor(store: LogStore) -> None:
    await store.append(HERE, [joined("j"), message("m1"), message("m2"), joined("k"), message("m3"), message("m4")])

    async def keys(*, below: int | None = None, limit: int = 10, floor: int = 1) -> list[str]:
        return [m.key for m in await store.messages(HERE, below=below, limit=limit, floor=floor)]

    assert await keys() == ["m4", "m3", "m2", "m1"]
    assert await keys(limit=2) == ["m4", "m3"]
    assert await keys(below=3) == ["m2", "m1"]
    assert await keys(below=1) == []
    assert await keys(below=99, limit=1) == ["m4"]
    assert await keys(floor=3) == ["m4", "m3", "m2"], "entry 3 is m2"
    assert await keys(floor=4) == ["m4", "m3"], "entry 4 is no message"
    assert await keys(floor=99) == []
    assert await keys(limit=0) == []
    (newest,) = await store.messages(HERE, below=None, limit=1, floor=1)
    assert numbers([newest]) == [(6, 4)]


async def test_offset_paging_reaches_every_message_once(store: LogStore) -> None:
    """Page n of size s begins below `messages + 1 - n * s`: numbers are dense, so an offset is a number."""
    await store.append(HERE, [entry for n in range(1, 26) for entry in (joined(f"j{n}"), message(f"m{n}"))])
    head = (await store.read(HERE, 0, 0)).head
    found: list[str] = []
    for offset in range(0, head.messages, 10):
        page = await store.messages(HERE, below=head.messages + 1 - offset, limit=10, floor=1)
        found += [m.key for m in page]
    assert found == [f"m{n}" for n in range(25, 0, -1)]


async def test_a_message_is_found_in_its_conversation_and_located_without(store: LogStore) -> None:
    await store.append(HERE, [message("a", "hi")])
    found = await store.message(HERE, MessageId("a"))
    assert found is not None
    assert (found.data, found.sequence, found.message_number) == (b'{"text":"hi"}', 1, 1)
    assert await store.message(THERE, MessageId("a")) is None
    assert await store.locate(MessageId("a")) == HERE


async def test_a_cancelled_append_is_stored_whole_or_not_at_all_and_its_keys_tell(store: LogStore) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.append(HERE, [message("a"), message("b")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.append, HERE, [message("c"), message("d")])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await store.append(HERE, [message(key) for key in "abcd"])
    entries = await everything(store)
    assert sorted(entry.key for entry in entries) == ["a", "b", "c", "d"]
    assert numbers(entries) == [(n, n) for n in range(1, 5)]


async def test_a_large_group_is_one_append(store: LogStore) -> None:
    appended = await store.append(HERE, [message(f"m{n}", "x" * 1_000) for n in range(300)])
    assert numbers([a.entry for a in appended]) == [(n, n) for n in range(1, 301)]
    assert (await store.read(HERE, 0, 0)).head == Head(tail=300, messages=300)


async def test_a_new_message_under_a_key_that_is_not_its_id_is_a_bug(store: LogStore) -> None:
    with pytest.raises(AssertionError):
        await store.append(HERE, [NewEntry("key", MESSAGE_CREATED, b"{}", ADA, 1, MessageId("id"))])
    assert await store.read(HERE, 0, 1) == EMPTY
