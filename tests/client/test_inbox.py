"""What waits for the reader: taken in without waiting, bounded, and nothing lost that has a number."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from secureconnect.client.events import Event, Position, beginning
from secureconnect.client.inbox import Inbox

pytestmark = pytest.mark.anyio
CHANNEL = "conversation:c"
ME = "user:u"


def entry(sequence: int, channel: str = CHANNEL) -> Event:
    return Event("message.created", channel, {}, sequence)


def frames(*sequences: int) -> list[dict[str, object]]:
    return [{"event": "message.created", "channel": CHANNEL, "sequence": n, "data": {}} for n in sequences]


def place(sequence: Position, *, missed: int = 0, recovered: bool = True) -> dict[str, object]:
    return {"sequence": sequence, "first": 1, "recovered": recovered, "missed": missed}


async def read(inbox: Inbox, count: int) -> list[Event]:
    with anyio.fail_after(5):
        return [await anext(inbox) for _ in range(count)]


def positions(events: Sequence[Event]) -> list[Position | None]:
    return [event.position for event in events]


@pytest.mark.parametrize(
    ("given", "cursor"),
    [
        (place(9), 9),
        (place(9, missed=3), 6),
        (place(9, missed=3, recovered=False), 9),
        (place("e-9", missed=2), "e-7"),
        (place("e-9"), "e-9"),
        ({"sequence": 4}, 4),
    ],
)
def test_a_place_begins_behind_what_is_still_to_come(given: dict[str, object], cursor: Position) -> None:
    assert beginning(given) == cursor


async def test_a_conversation_joined_while_live_has_a_cursor_from_then_on() -> None:
    inbox = Inbox({})
    assert inbox.take(Event("subscribed", CHANNEL, {"channel": CHANNEL, **place(7, missed=2)}))
    assert inbox.cursors.after() == {CHANNEL: 5}
    assert [inbox.take(entry(n)) for n in (5, 6, 7)] == [False, True, True]
    assert [event.name for event in await read(inbox, 3)] == ["subscribed", "message.created", "message.created"]


async def test_a_place_at_the_end_is_told_only_to_who_was_here_before() -> None:
    newcomer, returning = Inbox({}), Inbox({"conversation:known": 3})
    newcomer.placed({CHANNEL: place(7)})
    returning.placed({CHANNEL: place(7), "conversation:known": place(3), "conversation:x": {"error": {}}}, returns=True)
    returning.placed({"conversation:later": place(7, missed=4)}, returns=True)
    assert len(newcomer) == 0
    (gap,) = await read(returning, 1)
    assert gap == Event("gap", CHANNEL, {"channel": CHANNEL, "after": 7, "cause": "joined_away", "seen": None})
    assert len(returning) == 0
    assert returning.cursors.after() == {"conversation:known": 3, CHANNEL: 7, "conversation:later": 3}


async def test_a_gap_moves_the_cursor_and_is_told_once() -> None:
    inbox = Inbox({ME: "old-4", CHANNEL: 3})
    gap = Event("gap", ME, {"channel": ME, "after": "new-0", "cause": "not_kept"})
    assert [inbox.take(gap), inbox.take(gap)] == [True, False]
    inbox.placed({CHANNEL: place(90, missed=87, recovered=False)})
    assert inbox.cursors.after() == {ME: "new-0", CHANNEL: 90}
    told = await read(inbox, 2)
    assert [(event.name, event.data["seen"], event.data["after"]) for event in told] == [
        ("gap", "old-4", "new-0"),
        ("gap", 3, 90),
    ]


async def test_only_a_log_that_was_set_back_moves_a_cursor_back() -> None:
    inbox = Inbox({CHANNEL: 50})
    inbox.placed({CHANNEL: place(40, recovered=False)})  # while the other way brought more
    assert inbox.cursors.after() == {CHANNEL: 50}
    inbox.placed({CHANNEL: {**place(40, recovered=False), "reset": True}})
    assert inbox.cursors.after() == {CHANNEL: 40}
    assert inbox.take(entry(41))


async def test_what_finds_no_room_is_read_from_the_log_when_there_is_room() -> None:
    inbox = Inbox({CHANNEL: 0}, most=4)
    assert [inbox.take(entry(n)) for n in range(1, 9)] == [True] * 4 + [False] * 4
    assert inbox.cursors.after() == {CHANNEL: 4}
    assert positions(await read(inbox, 2)) == [1, 2]
    assert await inbox.wait_behind() == (CHANNEL, 4, 2)
    assert not inbox.take(entry(9)), "it is behind what is still to be read"
    assert inbox.read_on(CHANNEL, {"entries": frames(5, 6), "first": 1, "head": 9})
    assert positions(await read(inbox, 4)) == [3, 4, 5, 6]
    assert inbox.read_on(CHANNEL, {"entries": frames(7, 8, 9), "first": 1, "head": 9})
    assert inbox.take(entry(10)), "live again"
    assert positions(await read(inbox, 4)) == [7, 8, 9, 10]


async def test_an_entry_that_leaves_a_hole_sends_the_reader_to_the_log() -> None:
    inbox = Inbox({CHANNEL: 3})
    assert not inbox.take(entry(6))
    assert await inbox.wait_behind() == (CHANNEL, 3, 200)
    assert not inbox.read_on(CHANNEL, {"entries": [], "first": 1, "head": 3}), "a late replica: ask again"
    assert inbox.read_on(CHANNEL, {"entries": frames(4, 5, 6), "first": 1, "head": 6})
    assert positions(await read(inbox, 3)) == [4, 5, 6]


async def test_what_the_log_no_longer_has_is_told() -> None:
    inbox = Inbox({CHANNEL: 3})
    inbox.take(entry(9))
    assert inbox.read_on(CHANNEL, {"entries": frames(8, 9), "first": 8, "head": 9})
    events = await read(inbox, 3)
    assert [event.name for event in events] == ["gap", "message.created", "message.created"]
    assert (events[0].data["seen"], events[0].data["after"]) == (3, 7)
    inbox.take(entry(12))
    inbox.give_up(CHANNEL, "FORBIDDEN")
    (gap,) = await read(inbox, 1)
    assert (gap.data["cause"], gap.data["after"]) == ("FORBIDDEN", 12)


async def test_without_room_what_has_no_number_is_dropped_and_what_has_no_log_becomes_one_gap() -> None:
    inbox = Inbox({ME: "e-0", CHANNEL: 0}, most=2)
    assert [inbox.take(entry(n)) for n in (1, 2)] == [True, True]
    assert not inbox.take(Event("typing", CHANNEL, {}))
    for n in (1, 2, 3):
        inbox.take(Event("call.ringing", ME, {}, f"e-{n}"))
    assert len(inbox) == 2
    assert not inbox.take(entry(3))
    events = await read(inbox, 3)
    assert positions(events[:2]) == [1, 2]
    assert events[2] == Event("gap", ME, {"channel": ME, "after": "e-3", "cause": "unread", "seen": "e-0"})
    assert inbox.take(Event("call.ringing", ME, {}, "e-4"))


async def test_a_channel_that_was_left_is_forgotten_even_without_room() -> None:
    inbox = Inbox({CHANNEL: 0}, most=1)
    inbox.take(entry(1))
    inbox.take(entry(2))
    assert inbox.take(Event("unsubscribed", CHANNEL, {"channel": CHANNEL, "reason": "removed"}))
    assert inbox.cursors.after() == {}
    assert [event.name for event in await read(inbox, 2)] == ["message.created", "unsubscribed"]
    assert inbox.read_on(CHANNEL, {"entries": frames(2), "first": 1, "head": 2}), "a page that comes too late"
    assert len(inbox) == 0


async def test_reading_ends_behind_what_is_there_when_the_client_ends() -> None:
    inbox = Inbox({CHANNEL: 0})
    inbox.take(entry(1))
    inbox.close()
    assert positions([event async for event in inbox]) == [1]
