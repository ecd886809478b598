"""Reading back: pages of messages, the log itself, and the line before which nothing exists."""

from __future__ import annotations

import pytest
from tests.features.conversations.kit import ADA, BOB, CYD, NOWHERE, World, shown

from secureconnect.errors import BadRequest, Forbidden, NotFound
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.messages.model import cursor_below, read_cursor
from secureconnect.ids import ConversationId, UserId

FROM_JOIN = SettingsChange(is_e2ee_enabled=False, history_visibility="from_join")


async def pages(world: World, who: UserId, group: ConversationId, *, limit: int) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = await world.messages.history(who, group, limit=limit, cursor=cursor)
        found.append([shown(body)["content"] for body in page.messages])
        if page.next is None:
            return found
        cursor = page.next


async def test_history_is_newest_first_and_pages_without_gaps(world: World) -> None:
    group = await world.group(ADA, BOB)
    for n in range(1, 6):
        await world.say(ADA, group, str(n))
    assert await pages(world, BOB, group, limit=2) == [["5", "4"], ["3", "2"], ["1"]]
    assert await pages(world, BOB, group, limit=5) == [["5", "4", "3", "2", "1"]]


async def test_an_empty_history_is_one_empty_page(world: World) -> None:
    assert await pages(world, ADA, await world.group(ADA, BOB), limit=2) == [[]]


async def test_messages_that_come_in_between_do_not_move_the_pages(world: World) -> None:
    group = await world.group(ADA, BOB)
    for n in range(1, 4):
        await world.say(ADA, group, str(n))
    page = await world.messages.history(BOB, group, limit=2)
    await world.say(ADA, group, "4")
    page = await world.messages.history(BOB, group, limit=2, cursor=page.next)
    assert [shown(body)["content"] for body in page.messages] == ["1"]


async def test_the_id_of_the_last_message_seen_serves_as_a_cursor(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.say(ADA, group, "1")
    second = await world.say(ADA, group, "2")
    page = await world.messages.history(BOB, group, limit=5, cursor=second["message_id"].upper())
    assert [shown(body)["content"] for body in page.messages] == ["1"]
    with pytest.raises(BadRequest):
        await world.messages.history(BOB, group, limit=5, cursor=NOWHERE)


async def test_a_page_has_at_most_a_hundred(world: World) -> None:
    group = await world.group(ADA, BOB)
    for n in range(101):
        await world.say(ADA, group, str(n))
    page = await world.messages.history(BOB, group, limit=10**9)
    assert (len(page.messages), page.next is not None) == (100, True)
    part = await world.messages.entries(BOB, group, after=0, limit=10**9)
    assert (len(part.entries), part.head) == (102, 102)


@pytest.mark.parametrize(
    "text", ["x", "====", "é", "bQ", "bS0x", cursor_below(2**53), cursor_below(0), "A" * 5000, "bTk5" * 2000, "\ud800"]
)
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_cursor(text)
    assert refused.value.details["field"] == "cursor"


@pytest.mark.parametrize("number", [1, 2, 255, 2**53 - 1])
def test_a_cursor_reads_back(number: int) -> None:
    assert read_cursor(cursor_below(number)) == number


async def test_the_log_shows_the_envelopes_above_a_sequence(world: World) -> None:
    group = await world.group(ADA, BOB)
    sent = await world.say(ADA, group)
    await world.say(ADA, group)
    part = await world.messages.entries(BOB, group, after=1, limit=1)
    assert (part.first, part.head) == (1, 3)
    assert [shown(entry) for entry in part.entries] == [
        {"event": "message.created", "channel": f"conversation:{group}", "sequence": 2, "data": sent}
    ]
    assert (await world.messages.entries(BOB, group, after=3, limit=10)).entries == ()
    assert (await world.messages.entries(BOB, group, after=2**53, limit=10)).entries == ()


async def test_who_joined_later_reads_nothing_from_before(world: World) -> None:
    group = await world.group(ADA, BOB, settings=FROM_JOIN)
    await world.say(ADA, group, "before")
    await world.conversations.members.add(ADA, group, [CYD])
    await world.say(ADA, group, "after")
    assert await pages(world, CYD, group, limit=1) == [["after"]]
    part = await world.messages.entries(CYD, group, after=0, limit=10)
    assert (part.first, part.head) == (3, 4)
    assert [shown(entry)["sequence"] for entry in part.entries] == [3, 4]
    with pytest.raises(BadRequest):
        await world.messages.history(CYD, group, limit=1, cursor=await first_message(world, group))


async def first_message(world: World, group: ConversationId) -> str:
    page = await world.messages.history(ADA, group, limit=10)
    return str(shown(page.messages[-1])["message_id"])


async def test_strangers_and_removed_members_read_nothing(world: World) -> None:
    group = await world.group(ADA, BOB)
    await world.conversations.members.remove(ADA, group, BOB)
    for who in (BOB, CYD):
        with pytest.raises(Forbidden):
            await world.messages.history(who, group, limit=1)
        with pytest.raises(Forbidden):
            await world.messages.entries(who, group, after=0, limit=1)
    with pytest.raises(NotFound):
        await world.messages.history(ADA, NOWHERE, limit=1)
