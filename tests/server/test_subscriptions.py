"""What a socket listens to: subscribing, resuming, losing and gaining conversations, typing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from tests.server.socket_kit import World, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.hub import Page, SourceAway
from secureconnect.server.websocket import GatewayLimits
from secureconnect.server.websocket_subscriptions import HOLD_S
from secureconnect.testing.socket_client import Ended, SocketClient


async def subscribe(client: SocketClient, channels: object, after: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The answer for each channel."""
    answer = await client.call("subscribe", channels=channels, **({} if after is None else {"after": after}))
    result: Any = answer["result"]
    channels_answered: dict[str, Any] = result["channels"]
    return channels_answered


async def sequences(client: SocketClient, count: int) -> list[object]:
    return [(await client.next_event())["sequence"] for _ in range(count)]


async def nothing_comes(client: SocketClient) -> bool:
    """Whether the socket is silent but for an answer to a command behind everything that was sent."""
    await trio.sleep(2)
    await client.call("echo")
    return not client.events


async def test_a_subscription_says_where_it_begins_and_brings_what_comes(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("a")
        client = await world.connect()
        assert await subscribe(client, ["conversation:a"]) == {
            "conversation:a": {"sequence": 1, "first": 1, "recovered": True, "missed": 0}
        }
        world.post("a", {"text": "hello"})
        world.post("b")
        assert await client.next_event() == {
            "event": "message.created",
            "channel": "conversation:a",
            "sequence": 2,
            "data": {"text": "hello"},
        }
        assert await nothing_comes(client)


async def test_what_was_missed_follows_the_answer_in_order_and_before_anything_newer(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(250):
            world.post("a")
        client = await world.connect()
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 3})
        assert client.events == [], "the answer stands before the first replayed event"
        assert answer["conversation:a"] == {"sequence": 250, "first": 1, "recovered": True, "missed": 247}
        for _ in range(5):
            world.post("a")
        assert await sequences(client, 252) == list(range(4, 256))


async def test_too_much_missed_is_said_and_events_go_on_behind_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1200):
            world.post("a")
        client = await world.connect()
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 3})
        assert answer["conversation:a"]["recovered"] is False
        assert answer["conversation:a"]["sequence"] == 1200
        world.post("a")
        assert await sequences(client, 1) == [1201]


async def test_a_position_beyond_the_log_is_a_reset(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("a")
        client = await world.connect()
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 40})
        assert answer["conversation:a"] == {"sequence": 1, "first": 1, "recovered": False, "missed": 0, "reset": True}


async def test_each_channel_is_answered_for_itself(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.members.conversations["secret"] = {"bob": 1}
        client = await world.connect()
        channels = ["conversation:a", "conversation:secret", "conversation:none", "user:bob", "user:alice", "sports", ""]
        answer = await subscribe(client, channels)
        words = {name: shown.get("error", {}).get("code") for name, shown in answer.items()}
        assert words == {
            "conversation:a": None,
            "conversation:secret": "FORBIDDEN",
            "conversation:none": "NOT_FOUND",
            "user:bob": "FORBIDDEN",
            "user:alice": None,
            "sports": "VALIDATION_ERROR",
            "": "VALIDATION_ERROR",
        }


@pytest.mark.parametrize(
    ("channel", "position"),
    [("conversation:a", "x"), ("conversation:a", -1), ("conversation:a", 2**70), ("user:alice", 5), ("conversation:a", "١")],
)
async def test_a_position_that_is_none_is_refused(channel: str, position: object, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        answer: Any = await client.call("subscribe", channels=[channel], after={channel: position})
        assert answer["error"]["code"] == "VALIDATION_ERROR"
        assert "after" in answer["error"]["details"]["field"]


async def test_a_repeated_subscription_never_rewinds(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, ["conversation:a"])
        world.post("a")
        world.post("a")
        assert await sequences(client, 2) == [1, 2]
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 0})
        assert answer["conversation:a"]["sequence"] == 2
        assert await nothing_comes(client)


async def test_a_subscription_from_before_the_present_one_replays_what_lies_between(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(4):
            world.post("a")
        client = await world.connect()
        await subscribe(client, ["conversation:a"])
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 2})
        assert answer["conversation:a"] == {"sequence": 4, "first": 1, "recovered": True, "missed": 2}
        world.post("a")
        assert await sequences(client, 3) == [3, 4, 5]
        again = await subscribe(client, ["conversation:a"], {"conversation:a": 2})
        assert again["conversation:a"] == {"sequence": 5, "first": 1, "recovered": True, "missed": 0}
        assert await nothing_comes(client)


async def test_a_subscription_that_cannot_be_resumed_says_so_and_what_comes_still_comes(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1200):
            world.post("a")
        client = await world.connect()
        await subscribe(client, "all")
        old = await subscribe(client, ["conversation:a"], {"conversation:a": 3})
        assert old["conversation:a"] == {"sequence": 1200, "first": 1, "recovered": False, "missed": 1197}
        beyond = await subscribe(client, ["conversation:b"], {"conversation:b": 3})
        assert beyond["conversation:b"] == {"sequence": 0, "first": 1, "recovered": False, "missed": 0, "reset": True}
        elsewhere = await subscribe(client, ["user:alice"], {"user:alice": "elsewhere-3"})
        assert elsewhere["user:alice"]["recovered"] is False
        world.post("a")
        world.post("b")
        assert await sequences(client, 2) == [1201, 1]


async def test_a_subscription_over_its_deadline_keeps_what_was_subscribed_before(autojump_clock: MockClock) -> None:
    """Also where the channel had been placed anew already: it goes on from there."""
    async with open_world() as world:
        world.post("a")
        position = (await subscribe(await world.connect(), "all"))["user:alice"]["position"]
        world.hub.publish("user:alice", "notification.created", b'{"n":1}')
        client = await world.connect()
        await subscribe(client, ["conversation:a"])
        world.logs.gate = trio.Event()
        silent = [f"c{n}" for n in range(10)]  # each uses up a read's deadline
        world.members.conversations |= {name: {"alice": 1} for name in silent}
        channels = ["user:alice", *(f"conversation:{name}" for name in ("a", *silent))]
        params = {"channels": channels, "after": {"conversation:a": 0, "user:alice": position}}
        await client.say({"id": 99, "method": "subscribe", "params": params})
        answer: Any = await client.answer(99)
        assert answer["error"]["code"] == "REQUEST_TIMEOUT"
        world.logs.gate = None
        world.hub.publish("user:alice", "notification.created", b'{"n":2}')
        world.post("a")
        shown: list[dict[str, Any]] = [await client.next_event() for _ in range(4)]
        assert [event["data"]["n"] for event in shown if event["channel"] == "user:alice"] == [1, 2]
        assert [event["sequence"] for event in shown if event["channel"] == "conversation:a"] == [1, 2]


async def test_who_is_removed_while_subscribing_again_is_told_so(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, ["conversation:a"])
        gate = world.logs.gate = trio.Event()
        await client.say({"id": 7, "method": "subscribe", "params": {"channels": ["conversation:a", "conversation:b"]}})
        await wait_all_tasks_blocked()
        world.remove("a", "alice")
        world.logs.gate = None
        gate.set()
        answer: Any = await client.answer(7)
        assert answer["result"]["channels"]["conversation:a"]["error"]["code"] == "FORBIDDEN"


async def test_a_member_sees_from_where_it_may(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("a")
        world.members.conversations["a"]["alice"] = 4
        client = await world.connect()
        answer = await subscribe(client, ["conversation:a"], {"conversation:a": 3})
        assert answer["conversation:a"] == {"sequence": 5, "first": 4, "recovered": True, "missed": 2}
        assert await sequences(client, 2) == [4, 5]
        other = await world.connect()
        assert (await subscribe(other, ["conversation:a"], {"conversation:a": 1}))["conversation:a"]["recovered"] is False


async def test_all_means_ones_own_channel_and_every_conversation(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.members.conversations["secret"] = {"bob": 1}
        client = await world.connect()
        assert list(await subscribe(client, "all")) == ["user:alice", "conversation:a", "conversation:b"]
        world.post("b")
        assert await sequences(client, 1) == [1]


async def test_a_log_that_is_away_is_said_for_its_channel_and_joined_later_when_all_was_meant(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("a")
        world.logs.is_away = True
        client = await world.connect()
        answer = await subscribe(client, "all", {"conversation:a": 0})
        assert answer["conversation:a"]["error"]["code"] == "SERVICE_UNAVAILABLE"
        assert "error" not in answer["user:alice"]
        world.logs.is_away = False
        said = {str(event["channel"]): event async for event in _events(client, 3)}
        assert said["conversation:b"]["event"] == "subscribed"
        assert said["conversation:a"]["sequence"] == 1, "and from the client's own position"
        world.post("b")
        assert await sequences(client, 1) == [1]


async def _events(client: SocketClient, count: int) -> Any:  # noqa: ANN401  # an async generator
    for _ in range(count):
        yield await client.next_event()


async def test_a_conversation_that_one_is_added_to_belongs_to_all(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        everything, only_a = await world.connect(), await world.connect()
        await subscribe(everything, "all")
        await subscribe(only_a, ["conversation:a"])
        world.post("new")
        world.join("new", "alice", first=1)
        assert await everything.next_event() == {
            "event": "subscribed",
            "channel": "conversation:new",
            "data": {"channel": "conversation:new", "sequence": 1, "first": 1, "recovered": True, "missed": 0},
        }
        world.post("new")
        assert await sequences(everything, 1) == [2]
        assert await nothing_comes(only_a)


async def test_who_is_added_gets_the_entry_that_says_so_and_all_that_follows(autojump_clock: MockClock) -> None:
    """Else a client has no position there until somebody speaks, and what comes while its socket is broken is lost."""
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        for kind in ("conversation.created", "member.joined", "message.created"):
            world.post("new", kind=kind)
        world.join("new", "alice", first=2, joined=2)
        assert await client.next_event() == {
            "event": "subscribed",
            "channel": "conversation:new",
            "data": {"channel": "conversation:new", "sequence": 1, "first": 2, "recovered": True, "missed": 0},
        }, "a client that knows no position yet begins at `sequence`"
        world.post("new")
        assert await sequences(client, 3) == [2, 3, 4]


async def test_a_late_word_of_a_removal_that_was_undone_repeats_nothing(autojump_clock: MockClock) -> None:
    """A node may hear of both when the place is long taken again behind them."""
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        for kind in ("conversation.created", "member.joined", "message.created"):
            world.post("new", kind=kind)
        world.join("new", "alice", first=1, joined=2)
        assert (await client.next_event())["event"] == "subscribed"
        assert await sequences(client, 2) == [2, 3]
        world.remove("new", "alice")
        world.join("new", "alice", first=1, joined=2)
        assert [(await client.next_event())["event"] for _ in range(2)] == ["unsubscribed", "subscribed"]
        world.post("new")
        assert await sequences(client, 1) == [4]


@pytest.mark.parametrize("channels", ["all", ["conversation:a"]])
async def test_a_position_said_before_a_late_word_of_a_removal_arrived_repeats_nothing(
    channels: object, autojump_clock: MockClock
) -> None:
    """On a slow line the position is older than what the withdrawn place brought, and was true when it was said."""
    async with open_world() as world:
        client = await world.connect()
        for _ in range(2):
            world.post("a")
        await subscribe(client, channels, {"conversation:a": 1})
        for _ in range(2):
            world.post("a")
        assert await sequences(client, 3) == [2, 3, 4]
        for _ in range(2):
            world.remove("a", "alice")
            world.join("a", "alice", joined=1)
            await wait_all_tasks_blocked()
            world.post("a")
        answer = await subscribe(client, channels, {"conversation:a": 2})
        assert (answer["conversation:a"]["sequence"], answer["conversation:a"]["recovered"]) == (6, True)
        world.post("a")
        assert await numbers(client) == [5, 6, 7]


async def test_who_unsubscribes_or_says_an_older_position_gets_again_what_a_withdrawn_place_brought(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        client = await world.connect()
        for _ in range(3):
            world.post("a")
        await subscribe(client, "all", {"conversation:a": 1})
        assert await sequences(client, 2) == [2, 3]
        world.remove("a", "alice")
        world.join("a", "alice", joined=1)
        await subscribe(client, "all", {"conversation:a": 0})
        assert await numbers(client) == [1, 2, 3], "the place did not bring the first"
        await client.call("unsubscribe", channels=["conversation:a"])
        await subscribe(client, ["conversation:a"], {"conversation:a": 2})
        assert await numbers(client) == [3]


async def numbers(client: SocketClient) -> list[object]:
    """Of all entries that come."""
    await trio.sleep(2)
    await client.call("echo")
    events, client.events = client.events, []
    return [event["sequence"] for event in events if event["event"] == "message.created"]


async def test_a_position_that_the_client_gives_is_better_than_the_news_that_overtakes_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for kind in ("conversation.created", "member.joined", "message.created"):
            world.post("new", kind=kind)
        world.members.conversations["new"] = {"alice": 1}
        world.members.joined["new", "alice"] = 2
        client = await world.connect()
        world.logs.gate = trio.Event()
        positions = {"channels": "all", "after": {"conversation:new": 3}}
        await client.say({"id": 1, "method": "subscribe", "params": positions})
        await wait_all_tasks_blocked()
        world.join("new", "alice", first=1, joined=2)
        await wait_all_tasks_blocked()
        world.logs.is_away = True
        world.logs.gate.set()
        answer: Any = (await client.answer(1))["result"]
        assert answer["channels"]["conversation:new"]["error"]["code"] == "SERVICE_UNAVAILABLE"
        world.logs.is_away = False
        followed = [(await client.next_event())["channel"] for _ in range(3)]
        assert sorted(map(str, followed)) == ["conversation:a", "conversation:b", "conversation:new"]
        world.post("new")
        assert await sequences(client, 1) == [4]


async def test_too_much_since_the_joining_is_said_when_all_follows(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        for _ in range(1200):
            world.post("new")
        world.join("new", "alice", joined=2)
        data: Any = (await client.next_event())["data"]
        assert (data["sequence"], data["recovered"]) == (1200, False)
        world.post("new")
        assert await sequences(client, 1) == [1201]


async def test_who_comes_back_gets_what_she_was_added_to_meanwhile_from_its_beginning(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("new")
        world.join("new", "alice", first=3, joined=3)
        back = await world.connect()
        answer = await subscribe(back, "all", {"conversation:a": 0})
        assert answer["conversation:new"] == {"sequence": 2, "first": 3, "recovered": True, "missed": 0}
        assert await sequences(back, 3) == [3, 4, 5]


@pytest.mark.parametrize(
    ("channels", "after"),
    [
        ("all", None),
        ("all", {}),
        (["conversation:new"], {"conversation:a": 0}),
        (["conversation:new"], None),
    ],
)
async def test_who_comes_for_the_first_time_or_names_a_channel_begins_at_its_end(
    channels: object, after: dict[str, object] | None, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("new")
        world.join("new", "alice", joined=3)
        client = await world.connect()
        answer = await subscribe(client, channels, after)
        assert answer["conversation:new"] == {"sequence": 5, "first": 1, "recovered": True, "missed": 0}
        assert await nothing_comes(client)


async def test_a_membership_of_unknown_beginning_begins_at_the_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("b")
        back = await world.connect()
        answer = await subscribe(back, "all", {"conversation:a": 0})
        assert answer["conversation:b"] == {"sequence": 1, "first": 1, "recovered": True, "missed": 0}


async def test_too_much_since_the_joining_is_said_to_who_comes_back(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1200):
            world.post("new")
        world.join("new", "alice", joined=3)
        back = await world.connect()
        answer = await subscribe(back, "all", {"conversation:a": 0})
        assert answer["conversation:new"] == {"sequence": 1200, "first": 1, "recovered": False, "missed": 1198}


async def test_all_with_positions_does_not_repeat_what_is_already_subscribed(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("new")
        world.join("new", "alice", joined=3)
        client = await world.connect()
        await subscribe(client, "all")
        await subscribe(client, "all", {"conversation:a": 0})
        assert await nothing_comes(client)


@pytest.mark.parametrize(("after", "got"), [({"conversation:a": 0}, [2, 3]), (None, [3])])
async def test_what_could_not_be_joined_at_once_begins_where_it_would_have_begun(
    after: dict[str, object] | None, got: list[int], autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.post("new")
        world.post("new")
        world.join("new", "alice", joined=2)
        world.logs.is_away = True
        client = await world.connect()
        answer = await subscribe(client, "all", after)
        assert answer["conversation:new"]["error"]["code"] == "SERVICE_UNAVAILABLE"
        world.logs.is_away = False
        while (await client.next_event())["channel"] != "conversation:new":
            pass
        world.post("new")
        shown = [event async for event in _events(client, len(got))]
        assert [event["sequence"] for event in shown if event["event"] != "subscribed"] == got


async def test_joining_later_waits_out_an_outage(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        world.members.is_down = True
        world.join("new", "alice")
        await trio.sleep(5)
        world.members.is_down = False
        assert (await client.next_event())["event"] == "subscribed"


async def test_joining_later_waits_out_also_a_long_outage(autojump_clock: MockClock) -> None:
    """`all` was promised: a socket that gave up would never say so."""
    async with open_world(GatewayLimits(idle_s=1000)) as world:
        client = await world.connect()
        await subscribe(client, "all")
        world.members.is_down = True
        world.join("new", "alice")
        await trio.sleep(100)
        world.members.is_down = False
        assert (await client.next_event())["event"] == "subscribed"


async def test_a_log_that_is_away_does_not_keep_other_conversations_from_being_joined(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as world:
        read = world.logs.read

        async def one_is_away(channel: str, after: int, limit: int) -> Page:
            if channel == "conversation:away":
                raise SourceAway("away")
            return await read(channel, after, limit)

        monkeypatch.setattr(world.logs, "read", one_is_away)
        client = await world.connect()
        await subscribe(client, "all")
        began_s = trio.current_time()
        world.join("away", "alice")
        world.join("new", "alice")
        assert (await client.next_event())["channel"] == "conversation:new"
        assert trio.current_time() - began_s < 10, "with the next try, not after the last one"


async def test_a_removed_member_is_cut_off_at_once_and_told_and_the_socket_stays(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        removed, other = await world.connect("alice"), await world.connect("bob")
        await subscribe(removed, "all")
        await subscribe(other, "all")
        world.remove("a", "alice")
        world.post("a")
        world.post("b")
        assert await removed.next_event() == {
            "event": "unsubscribed",
            "channel": "conversation:a",
            "data": {"channel": "conversation:a", "reason": "removed"},
        }
        assert (await removed.next_event())["channel"] == "conversation:b"
        assert await sequences(other, 2) == [1, 1]
        assert (await subscribe(removed, ["conversation:a"]))["conversation:a"]["error"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("reason", ["left", "removed", "deleted"])
async def test_the_event_says_why_one_is_no_member_any_more(reason: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        world.remove("a", "alice", reason)
        assert (await client.next_event())["data"] == {"channel": "conversation:a", "reason": reason}


async def test_who_is_removed_while_subscribing_does_not_get_in(autojump_clock: MockClock) -> None:
    """Between "she is a member" and the place in the hub lies a wait; the signal may fall into it."""
    async with open_world() as world:
        client = await world.connect()
        await client.call("echo")
        gate = world.logs.gate = trio.Event()
        await client.say({"id": 7, "method": "subscribe", "params": {"channels": ["conversation:a", "conversation:b"]}})
        await wait_all_tasks_blocked()
        world.remove("a", "alice")
        world.logs.gate = None
        gate.set()
        answer: Any = await client.answer(7)
        assert answer["result"]["channels"]["conversation:a"]["error"]["code"] == "FORBIDDEN"
        world.post("a")
        world.post("b")
        assert (await client.next_event())["channel"] == "conversation:b"
        assert await nothing_comes(client)


async def test_who_is_removed_from_one_while_another_is_being_taken_does_not_get_in(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await subscribe(await world.connect("bob"), ["conversation:a"])  # so that it is open, and taken without a wait
        client = await world.connect()
        gate = world.logs.gate = trio.Event()
        await client.say({"id": 7, "method": "subscribe", "params": {"channels": ["conversation:a", "conversation:b"]}})
        await wait_all_tasks_blocked()
        assert len(world.hub.members("conversation:a")) == 2
        world.remove("a", "alice")
        world.logs.gate = None
        gate.set()
        answer: Any = await client.answer(7)
        assert answer["result"]["channels"]["conversation:a"]["error"]["code"] == "FORBIDDEN"
        assert "error" not in answer["result"]["channels"]["conversation:b"]
        assert len(world.hub.members("conversation:a")) == 1


async def test_who_is_removed_while_all_follows_does_not_get_in(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        gate = world.logs.gate = trio.Event()
        world.join("new", "alice")
        await wait_all_tasks_blocked()
        world.remove("new", "alice")
        world.logs.gate = None
        gate.set()
        assert await nothing_comes(client)
        assert world.hub.members("conversation:new") == ()


async def test_a_subscription_that_ends_with_its_session_brings_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        gate = world.logs.gate = trio.Event()
        await client.say({"id": 6, "method": "wait.aside", "params": {"text": "holds the socket open"}})
        await client.say({"id": 7, "method": "subscribe", "params": {"channels": ["conversation:a"]}})
        await wait_all_tasks_blocked()
        world.end_session("alice")
        world.logs.gate = None
        gate.set()
        assert "result" in await client.answer(7)
        world.post("a")
        assert (await client.end()).reason == "token_revoked"
        assert [event["event"] for event in client.events] == ["session.ended"]
        assert world.hub.ledger.delivered == 0


async def _events_until_the_end(client: SocketClient) -> list[object]:
    """The names of what still comes, and the reason of the end."""
    seen: list[object] = []
    try:
        while True:
            seen.append((await client.message()).get("event"))
    except Ended as ended:
        return [*seen, ended.reason]


async def test_what_all_still_has_to_follow_is_not_joined_after_the_session(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("a")
        world.logs.is_away = True
        client = await world.connect()
        assert "error" in (await subscribe(client, "all", {"conversation:a": 0}))["conversation:a"]
        await client.say({"id": 6, "method": "wait.aside", "params": {"text": "holds the socket open"}})
        await wait_all_tasks_blocked()
        world.end_session("alice")
        world.logs.is_away = False
        assert await _events_until_the_end(client) == ["session.ended", "token_revoked"]


async def test_unsubscribing_ends_the_events_but_not_those_of_ones_own_channel(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await subscribe(client, "all")
        gone: Any = await client.call("unsubscribe", channels=["conversation:a", "conversation:none", "user:alice"])
        assert gone["result"] == {"channels": ["conversation:a"]}
        world.post("a")
        world.hub.publish("user:alice", "notification.created", b"{}")
        assert (await client.next_event())["event"] == "notification.created"
        await client.call("unsubscribe", channels="all")
        world.post("b")
        world.join("new", "alice")
        assert await nothing_comes(client)


async def test_a_subscription_over_the_limit_is_refused_for_its_channel(autojump_clock: MockClock) -> None:
    async with open_world(GatewayLimits(channels_max=2)) as world:
        client = await world.connect()
        answer = await subscribe(client, ["conversation:a", "conversation:b"])
        assert "error" not in answer["conversation:a"]
        assert answer["conversation:b"]["error"]["code"] == "TOO_LARGE"
        refused: Any = await client.call("subscribe", channels=["a", "b", "c"])
        assert refused["error"]["code"] == "VALIDATION_ERROR"


async def test_a_subscription_over_its_deadline_leaves_nothing_half_done(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        world.members.gate = trio.Event()
        await client.say({"id": 1, "method": "subscribe", "params": {"channels": "all"}})
        answer: Any = await client.answer(1)
        assert answer["error"]["code"] == "REQUEST_TIMEOUT"
        world.members.gate = None
        world.post("a")
        world.join("new", "alice")
        world.hub.publish("user:alice", "notification.created", b"{}")
        assert (await client.next_event())["event"] == "notification.created"
        assert await nothing_comes(client)


async def test_places_taken_by_a_subscription_over_its_deadline_are_given_up(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await subscribe(await world.connect("bob"), ["conversation:a"])
        client = await world.connect()
        world.logs.gate = trio.Event()
        silent = [f"c{n}" for n in range(10)]  # each uses up a read's deadline
        world.members.conversations |= {name: {"alice": 1} for name in silent}
        channels = [f"conversation:{name}" for name in ("a", *silent)]
        await client.say({"id": 1, "method": "subscribe", "params": {"channels": channels}})
        await wait_all_tasks_blocked()
        assert len(world.hub.members("conversation:a")) == 2
        answer: Any = await client.answer(1)
        assert answer["error"]["code"] == "REQUEST_TIMEOUT"
        assert len(world.hub.members("conversation:a")) == 1


# -- one's own channel


async def test_ones_own_channel_needs_no_subscription(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        world.hub.publish("user:alice", "notification.created", b'{"n":1}')
        event = await client.next_event()
        assert (event["event"], event["data"]) == ("notification.created", {"n": 1})
        assert isinstance(event["position"], str)
        assert trio.current_time() - began_s <= HOLD_S + 0.3
        world.hub.publish("user:alice", "notification.created", b'{"n":2}')
        began_s = trio.current_time()
        assert (await client.next_event())["data"] == {"n": 2}
        assert trio.current_time() == began_s, "only the first is held, once"


async def test_ones_own_channel_is_resumed_where_the_client_says(autojump_clock: MockClock) -> None:
    """What came between two connections, and between `hello` and `subscribe`, comes once and in order."""
    async with open_world() as world:
        first = await world.connect()
        position = (await subscribe(first, ["user:alice"]))["user:alice"]["position"]
        await first.close()
        world.hub.publish("user:alice", "notification.created", b'{"n":1}')
        back = await world.connect()
        world.hub.publish("user:alice", "notification.created", b'{"n":2}')
        answer = await subscribe(back, "all", {"user:alice": position})
        assert answer["user:alice"]["recovered"] is True
        assert answer["user:alice"]["missed"] == 2
        world.hub.publish("user:alice", "notification.created", b'{"n":3}')
        assert [(await back.next_event())["data"] for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await nothing_comes(back)


async def test_ones_own_channel_is_resumed_also_by_who_takes_her_time(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        first = await world.connect()
        position = (await subscribe(first, ["user:alice"]))["user:alice"]["position"]
        await first.close()
        world.hub.publish("user:alice", "notification.created", b'{"n":1}')
        back = await world.connect()
        await trio.sleep(HOLD_S * 3)
        await back.call("echo")
        answer = await subscribe(back, ["conversation:a"], {"user:alice": position})
        assert answer["user:alice"]["recovered"] is True
        world.hub.publish("user:alice", "notification.created", b'{"n":2}')
        assert [(await back.next_event())["data"] for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert await nothing_comes(back)


async def test_an_event_held_back_until_the_first_subscription_lies_behind_the_place_that_is_said(
    autojump_clock: MockClock,
) -> None:
    """A client without a position begins there, and would take what lies before it for seen."""
    async with open_world() as world:
        client = await world.connect()
        before = world.hub.publish("user:alice", "notification.created", b"{}")
        answer = await subscribe(client, "all")
        assert answer["user:alice"]["position"] != before
        assert (await client.next_event())["position"] == before


async def test_a_command_that_is_no_subscription_lets_ones_own_channel_begin(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        world.hub.publish("user:alice", "notification.created", b"{}")
        await client.call("echo")
        assert (await client.next_event())["event"] == "notification.created"
        assert trio.current_time() == began_s


# -- typing


async def typing(client: SocketClient, *, is_typing: bool = True) -> dict[str, object]:
    return await client.call("typing", conversation_id="a", is_typing=is_typing)


async def test_typing_reaches_who_listens_and_is_no_entry(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        alice, bob = await world.connect("alice"), await world.connect("bob")
        await subscribe(bob, ["conversation:a"])
        assert (await typing(alice))["result"] == {}
        assert await bob.next_event() == {
            "event": "typing",
            "channel": "conversation:a",
            "data": {"conversation_id": "a", "user_id": "alice", "is_typing": True},
        }
        assert world.logs.items == {}


async def test_a_stranger_cannot_type(autojump_clock: MockClock) -> None:
    async with open_world(members=["bob"]) as world:
        answer: Any = await typing(await world.connect("alice"))
        assert answer["error"]["code"] == "FORBIDDEN"


async def test_typing_that_waits_is_replaced_by_what_is_newer(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        alice, bob = await world.connect("alice"), await world.connect("bob", window_bytes=2000)
        await subscribe(bob, ["conversation:a"])
        await fill(world, bob)
        for n in range(21):
            await typing(alice, is_typing=n % 2 == 0)
        world.post("a", {"last": True})
        typed = []
        while (event := await bob.next_event())["data"] != {"last": True}:
            if event["event"] == "typing":
                typed.append(event["data"])
        assert typed == [{"conversation_id": "a", "user_id": "alice", "is_typing": True}]


async def fill(world: World, client: SocketClient) -> None:
    """Until something waits for this client beyond its window."""
    for _ in range(3):
        world.post("a", {"text": "x" * 1000})
    await wait_all_tasks_blocked()
