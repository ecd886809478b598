"""Long polls: the same events under the same numbers as on a socket, and nothing lost or repeated between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio
from tests.server.socket_kit import World, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.hub import Page
from secureconnect.ids import RequestId
from secureconnect.server import polling
from secureconnect.server.endpoints import Context, Endpoint, Via
from secureconnect.server.wire import Response


class Poller:
    """Polls as one user, through dispatch."""

    def __init__(self, world: World, token: str = "alice", *, polls_max: int = 1000, via: Via = "http") -> None:
        self.via = via
        self.polls = polling.Polls(world.hub, world.access, world.tokens.clock, polls_max=polls_max, attendance=world.presence)
        self.rows: Mapping[str, Endpoint] = {row.name: row for row in polling.endpoints(self.polls)}
        self._world = world
        self._token = token

    async def ask(self, name: str = "realtime.poll", /, **values: object) -> Response:
        identity = self._world.tokens.authenticate(self._token)
        context = Context(self.via, "192.0.2.1:4000", RequestId("r"), identity)
        return await self._world.dispatcher.call(self.rows[name], values, context)

    async def poll(self, name: str = "realtime.poll", /, **values: object) -> dict[str, Any]:
        response = await self.ask(name, **values)
        assert response.error is None, response.error
        assert response.data is not None
        result: dict[str, Any] = msgspec.json.decode(response.data)
        return result


def sequences(result: Mapping[str, Any]) -> list[object]:
    return [event["sequence"] for event in result["events"]]


A, B = "conversation:a", "conversation:b"


async def test_without_a_position_it_answers_at_once_with_the_heads(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("a")
        world.post("a")
        began_s = trio.current_time()
        result = await Poller(world).poll(channels="all")
        assert result["events"] == []
        assert (result["after"][A], result["after"][B]) == (2, 0)
        assert isinstance(result["after"]["user:alice"], str)
        assert trio.current_time() == began_s


async def test_what_was_missed_comes_at_once_with_the_positions_to_go_on_from(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(3):
            world.post("a")
        world.post("b")
        result = await Poller(world).poll(channels=f"{A},{B}", after=f"{A}:1,{B}:1")
        assert sequences(result) == [2, 3]
        assert result["after"] == {A: 3, B: 1}


async def test_it_waits_for_what_comes_and_answers_then(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller, began_s = Poller(world), trio.current_time()
        async with trio.open_nursery() as nursery:

            async def posts() -> None:
                await trio.sleep(7)
                world.post("a", {"text": "hello"})

            nursery.start_soon(posts)
            result = await poller.poll(channels=A, after=f"{A}:0")
        assert trio.current_time() - began_s == pytest.approx(7)
        assert result["events"] == [{"event": "message.created", "channel": A, "sequence": 1, "data": {"text": "hello"}}]


@pytest.mark.parametrize(("values", "took_s"), [({}, 25), ({"wait_s": "3"}, 3), ({"wait_s": 0}, 0), ({"wait_s": 1000}, 60)])
async def test_when_nothing_comes_it_answers_empty_after_its_wait(
    values: dict[str, Any], took_s: float, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        began_s = trio.current_time()
        result = await Poller(world).poll(channels=A, after={A: 0}, **values)
        assert result == {"events": [], "after": {A: 0}}
        assert trio.current_time() - began_s == pytest.approx(took_s, abs=0.01)


async def test_polls_one_after_another_lose_and_repeat_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller, got, after = Poller(world), list[object](), {A: 0}

        async def posts() -> None:
            for n in range(500):
                world.post("a")
                if n % 7 == 0:
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(posts)
            while len(got) < 500:
                result = await poller.poll(channels=A, after=after)
                got += sequences(result)
                after = result["after"]
                await trio.sleep(0.005)
        assert got == list(range(1, 501))


async def test_what_could_not_be_read_yet_is_not_passed_over(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await (await world.connect("bob")).call("subscribe", channels=[A])  # the channel is open and its end known
        for _ in range(3):
            world.post("a")
        world.logs.gate = trio.Event()
        assert await Poller(world).poll(channels=A, after=f"{A}:1", wait_s=1) == {"events": [], "after": {A: 1}}
        world.logs.gate.set()
        assert sequences(await Poller(world).poll(channels=A, after=f"{A}:1")) == [2, 3]


async def test_who_is_removed_while_joining_is_refused(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        gate = world.logs.gate = trio.Event()
        async with trio.open_nursery() as nursery:

            async def removes() -> None:
                await wait_all_tasks_blocked()
                world.remove("a", "alice")
                gate.set()

            nursery.start_soon(removes)
            response = await Poller(world).ask(channels=A, after=f"{A}:0")
        assert response.status == 403


async def test_switching_between_poll_and_socket_loses_and_repeats_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(4):
            world.post("a")
        result = await Poller(world).poll(channels=A, after=f"{A}:1")
        client = await world.connect()
        await client.call("subscribe", channels=[A], after=result["after"])
        world.post("a")
        event = await client.next_event()
        assert [*sequences(result), event["sequence"]] == [2, 3, 4, 5]


async def test_a_long_absence_is_brought_in_few_answers_of_a_bounded_size(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1000):
            world.post("a", {"text": "x" * 2000})
        got, after, answers = list[object](), {A: 0}, 0
        while len(got) < 1000:
            result = await Poller(world).poll(channels=A, after=after)
            got, after, answers = got + sequences(result), result["after"], answers + 1
            size = sum(len(event["data"]["text"]) for event in result["events"])
            assert size <= polling.EVENTS_BYTES_MAX
        assert got == list(range(1, 1001))
        assert answers <= 4


async def test_what_cannot_be_resumed_comes_as_a_gap(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1100):
            world.post("a")
        result = await Poller(world).poll(channels=f"{A},{B},user:alice", after=f"{A}:5,{B}:9,user:alice:elsewhere-3")
        gaps = {event["channel"]: event["data"] for event in result["events"] if event["event"] == "gap"}
        assert gaps[A] == {"channel": A, "after": 1100, "cause": "not_kept"}
        assert gaps[B] == {"channel": B, "after": 0, "cause": "reset"}
        assert gaps["user:alice"]["after"] == result["after"]["user:alice"]
        assert (result["after"][A], result["after"][B]) == (1100, 0)


@pytest.mark.parametrize("first", [1, 3])
async def test_a_conversation_that_one_was_added_to_since_is_polled_from_its_beginning(
    first: int, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("new")
        world.join("new", "alice", first=first, joined=3)
        result = await Poller(world).poll(channels="all", after={A: 0}, wait_s=1)
        assert sequences(result) == [3, 4, 5]
        assert result["after"]["conversation:new"] == 5


async def test_what_is_polled_for_the_first_time_or_by_name_begins_at_its_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(5):
            world.post("new")
        world.join("new", "alice", joined=3)
        new = "conversation:new"
        assert (await Poller(world).poll(channels="all"))["after"][new] == 5
        assert await Poller(world).poll(channels=f"{A},{new}", after={A: 0}, wait_s=1) == {"events": [], "after": {A: 0, new: 5}}


async def test_too_much_since_one_was_added_comes_as_a_gap(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(1100):
            world.post("new")
        world.join("new", "alice", joined=3)
        result = await Poller(world).poll(channels="all", after={A: 0})
        (gap,) = result["events"]
        assert gap["data"] == {"channel": "conversation:new", "after": 1100, "cause": "not_kept"}
        assert result["after"]["conversation:new"] == 1100


async def test_a_user_channel_is_polled_by_its_own_positions(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller = Poller(world)
        after = (await poller.poll(channels="user:alice"))["after"]["user:alice"]
        for n in range(3):
            world.hub.publish("user:alice", "notification.created", b'{"n":%d}' % n)
        result = await poller.poll(channels="user:alice", after=f"user:alice:{after}")
        assert [event["data"]["n"] for event in result["events"]] == [0, 1, 2]
        assert result["after"]["user:alice"] == result["events"][-1]["position"]


async def test_messages_are_polled_alone_and_other_entries_are_passed_over(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller = Poller(world)
        world.post("a", kind="member.joined")
        heads = await poller.poll("messages.poll", conversation_id="a")
        assert heads == {"events": [], "after": {A: 1}}
        world.post("a", kind="member.left")
        empty = await poller.poll("messages.poll", conversation_id="a", after=1, wait_s=2)
        assert empty == {"events": [], "after": {A: 2}}
        world.post("a", kind="member.joined")
        world.post("a", kind="message.edited")
        result = await poller.poll("messages.poll", conversation_id="a", after="2")
        assert [event["event"] for event in result["events"]] == ["message.edited"]
        assert result["after"] == {A: 4}


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({}, 400, "VALIDATION_ERROR"),
        ({"channels": "sports"}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "after": "17"}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "after": f"{A}:x"}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "after": {A: -1}}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "after": {A: 1.5}}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "wait_s": -1}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "wait_s": "nan"}, 400, "VALIDATION_ERROR"),
        ({"channels": A, "wait_s": "soon"}, 400, "VALIDATION_ERROR"),
        ({"channels": ",".join(f"conversation:{n}" for n in range(1001))}, 400, "VALIDATION_ERROR"),
        ({"channels": "conversation:secret"}, 403, "FORBIDDEN"),
        ({"channels": "user:bob"}, 403, "FORBIDDEN"),
        ({"channels": "conversation:none"}, 404, "NOT_FOUND"),
    ],
)
async def test_what_cannot_be_polled_is_refused(
    values: dict[str, Any], status: int, code: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.members.conversations["secret"] = {"bob": 1}
        response = await Poller(world).ask(**values)
        assert response.error is not None
        assert (response.status, response.error.word) == (status, code)


async def test_a_log_that_is_away_is_503(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.logs.is_away = True
        response = await Poller(world).ask(channels=A, after=f"{A}:0")
        assert (response.status, response.headers.get("Retry-After")) == (503, "1")


async def test_more_polls_than_the_limit_are_503_at_capacity(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller = Poller(world, polls_max=2)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: poller.ask(channels=A, after=f"{A}:0"))
            await wait_all_tasks_blocked()
            refused = await poller.ask(channels=A, after=f"{A}:0")
            assert refused.error is not None
            assert refused.error.word == "SERVER_AT_CAPACITY"
        assert (await poller.ask(channels=A)).status == 200


@pytest.mark.parametrize(
    ("name", "values", "left"),
    [
        ("realtime.poll", {"channels": "all", "after": {A: 0, B: 0}}, [B, "user:alice"]),
        ("realtime.poll", {"channels": A, "after": {A: 0}}, []),
        ("messages.poll", {"conversation_id": "a", "after": 0}, []),
    ],
)
async def test_a_member_removed_while_polling_is_told_at_once(
    name: str, values: dict[str, Any], left: list[str], autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        async with trio.open_nursery() as nursery:

            async def removes() -> None:
                await trio.sleep(1)
                world.remove("a", "alice", "left")
                world.post("a")

            nursery.start_soon(removes)
            began_s = trio.current_time()
            result = await Poller(world).poll(name, **values)
        assert trio.current_time() - began_s == pytest.approx(1)
        data = {"channel": A, "reason": "left"}
        assert result["events"] == [{"event": "unsubscribed", "channel": A, "data": data}]
        assert sorted(result["after"]) == left


async def test_a_member_removed_while_another_channel_is_joined_is_told_and_others_are_polled_next(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        await (await world.connect("bob")).call("subscribe", channels=[A])  # so that it is open, and taken without a wait
        world.post("b")
        gate = world.logs.gate = trio.Event()
        async with trio.open_nursery() as nursery:

            async def removes() -> None:
                await wait_all_tasks_blocked()
                world.remove("a", "alice")
                gate.set()

            nursery.start_soon(removes)
            result = await Poller(world).poll(channels=f"{A},{B}", after={A: 0, B: 0})
        assert [event["event"] for event in result["events"]] == ["unsubscribed"]
        assert result["after"] == {B: 0}
        assert sequences(await Poller(world).poll(channels=B, after=result["after"])) == [1]


async def test_who_is_removed_while_all_is_joined_polls_the_rest(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.post("b")
        gate = world.logs.gate = trio.Event()
        async with trio.open_nursery() as nursery:

            async def removes() -> None:
                await wait_all_tasks_blocked()
                world.remove("a", "alice")
                gate.set()

            nursery.start_soon(removes)
            result = await Poller(world).poll(channels="all", after={A: 0, B: 0})
        assert sequences(result) == [1]
        assert A not in result["after"]


async def test_a_poll_ends_with_the_life_of_its_token(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        poller, began_s = Poller(world, "alice/phone/10"), trio.current_time()
        response = await poller.ask(channels=A, after={A: 0})
        assert trio.current_time() - began_s == pytest.approx(10, abs=0.01)
        assert response.error is not None
        assert (response.status, response.error.word) == (401, "TOKEN_EXPIRED")


async def test_a_poll_whose_token_ends_brings_what_it_has(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "REPLAY_S", 30)
    async with open_world() as world:
        for _ in range(250):
            world.post("a")
        poller = Poller(world, "alice/phone/2")
        read = world.logs.read

        async def only_the_first_page(channel: str, after: int, limit: int) -> Page:
            if after:
                await trio.sleep_forever()
            return await read(channel, after, limit)

        monkeypatch.setattr(world.logs, "read", only_the_first_page)
        began_s = trio.current_time()
        result = await poller.poll(channels=A, after={A: 0})
        assert trio.current_time() - began_s == pytest.approx(2, abs=0.01)
        assert sequences(result) == list(range(1, result["after"][A] + 1))


async def test_the_end_of_the_login_session_ends_its_polls_and_no_others(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        responses: dict[str, Response] = {}

        async def polls(token: str) -> None:
            responses[token] = await Poller(world, token).ask(channels=A, after=f"{A}:0")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(polls, "alice/phone")
            nursery.start_soon(polls, "alice/laptop")
            await wait_all_tasks_blocked()
            world.end_session("alice", "phone")
            await wait_all_tasks_blocked()
            assert responses["alice/phone"].status == 401
            world.post("a")
        assert responses["alice/laptop"].status == 200


async def test_a_poll_that_is_cancelled_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with trio.move_on_after(3):
            await Poller(world).ask(channels=A, after=f"{A}:0")
        assert world.hub.members(A) == ()
        assert world.hub.statistics().peers == 0


# -- the end of the server


@pytest.mark.parametrize("name", ["realtime.poll", "messages.poll"])
async def test_a_drain_answers_who_waits_at_once_with_the_positions_that_it_brought(name: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(3):
            world.post("a")
        poller, results = Poller(world), list[dict[str, Any]]()
        values = {"channels": A, "after": {A: 3}} if name == "realtime.poll" else {"conversation_id": "a", "after": 3}

        async def poll() -> None:
            results.append(await poller.poll(name, **values))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            assert poller.polls.waiting == 2
            poller.polls.end_waits()
        world.post("a")
        assert results == [{"events": [], "after": {A: 3}}] * 2
        assert trio.current_time() == 0
        assert (await Poller(world).poll(name, **values))["after"] == {A: 4}  # another server goes on where this one was left


async def test_while_it_drains_a_poll_waits_for_nothing_and_passes_nothing_over(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(3):
            world.post("a")
        poller = Poller(world)
        poller.polls.end_waits()
        result = await poller.poll(channels=f"{A},{B}", after={A: 1, B: 0})
        assert trio.current_time() == 0
        assert result["after"][A] == 1 + len(result["events"])
        assert (await poller.poll(channels=A))["after"] == {A: 3}


async def test_a_drain_leaves_polls_over_sockets_to_the_sockets(autojump_clock: MockClock) -> None:
    """A socket lives on until its own farewell, and its client would ask again at once, and again."""
    async with open_world() as world:
        poller = Poller(world, via="socket")
        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                await poller.poll(channels=A, after={A: 0}, wait_s=5)

            nursery.start_soon(poll)
            await wait_all_tasks_blocked()
            poller.polls.end_waits()
        assert trio.current_time() == pytest.approx(5, abs=0.01)
