"""The native socket of interface.md §5: handshake, authentication, commands, clocks, endings. In memory, under virtual time."""

from __future__ import annotations

import msgspec
import pytest
import structlog
import trio
from tests.server.socket_kit import LIFE_S, World, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.server.session import Session
from secureconnect.server.websocket import GatewayLimits
from secureconnect.testing.socket_client import BINARY, CLOSE, PING, PONG, Ended, SocketClient, frame

# -- authentication


async def authenticate(client: SocketClient, token: str) -> None:
    await client.say({"id": 0, "method": "auth", "params": {"token": token}})


async def test_hello_comes_first_and_says_who_one_is_and_what_the_bounds_are(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin("alice")
        assert (await client.upgraded()).status == 101
        hello = await client.message()
        assert hello["event"] == "hello"
        data = hello["data"]
        assert isinstance(data, dict)
        assert (data["user_id"], data["session_id"], data["heartbeat_s"]) == ("alice", "alice-main", 25.0)
        assert data["degraded"] == {}
        assert data["limits"]["message_bytes_max"] == 1 << 20
        assert {"connection_id", "server_time", "node"} <= set(data)


@pytest.mark.parametrize("name", ["token", "access_token"])
async def test_the_token_may_stand_in_the_query(name: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin(query={name: "bob"})
        assert (await client.upgraded()).status == 101
        assert (await client.message())["event"] == "hello"


async def test_the_token_may_come_in_the_first_frame_and_hello_stands_before_the_answer(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin()
        assert (await client.upgraded()).status == 101
        assert (await client.call("echo"))["error"]["code"] == "UNAUTHORIZED"  # type: ignore[index]  # an error object
        await authenticate(client, "alice")
        assert (await client.message())["event"] == "hello"
        answer = await client.answer(0)
        assert answer["result"] == {
            "user_id": "alice",
            "session_id": "alice-main",
            "connection_id": "00000000-0000-4000-8000-000000000002",
        }
        assert (await client.call("echo", text="x"))["result"] == {"text": "x", "user": "alice"}


@pytest.mark.parametrize(
    ("token", "code"),
    [("", "UNAUTHORIZED"), ("0", "UNAUTHORIZED"), ("alice/main/-1", "TOKEN_EXPIRED"), ("bob/stolen", "TOKEN_REVOKED")],
)
async def test_a_wrong_token_in_header_or_query_is_401_before_the_upgrade(
    token: str, code: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.tokens.revoked["bob-stolen"] = None
        for client in (world.begin(token), world.begin(query={"token": token})):
            refused = await client.upgraded()
            assert refused.status == 401
            assert msgspec.json.decode(refused.body)["error"]["code"] == code
            assert refused.headers["www-authenticate"] == "Bearer"
            assert (await client.end()).code == 1006


@pytest.mark.parametrize(
    ("token", "word"),
    [("0", "token_invalid"), ("alice/main/-1", "token_expired"), ("bob/stolen", "token_revoked")],
)
async def test_a_wrong_token_in_the_first_frame_is_answered_and_closed_1008(
    token: str, word: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.tokens.revoked["bob-stolen"] = None
        client = world.begin()
        await client.upgraded()
        await authenticate(client, token)
        assert "error" in await client.answer(0)
        ended = await client.end()
        assert (ended.code, ended.reason) == (1008, word)


async def test_who_brings_no_token_is_closed_after_ten_seconds_whatever_else_it_says(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin()
        await client.upgraded()
        began_s = trio.current_time()
        ended = None
        while ended is None:
            await client.say({"method": "ping"})
            try:
                assert (await client.message())["event"] == "pong"
                await trio.sleep(0.5)
            except Ended as error:
                ended = error
        assert (ended.code, ended.reason) == (1008, "auth_timeout")
        assert 10 <= trio.current_time() - began_s <= 11


async def test_a_token_that_expires_closes_the_socket_and_a_fresh_one_keeps_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        began_s = trio.current_time()
        short, renewed = await world.connect("alice/main/30"), await world.connect("alice/main/30")
        await authenticate(renewed, f"alice/main/{LIFE_S}")
        assert (await renewed.answer(0))["result"]["session_id"] == "alice-main"  # type: ignore[index]  # an object
        ended = await short.end()
        assert (ended.code, ended.reason) == (1008, "token_expired")
        assert 30 <= trio.current_time() - began_s <= 31
        assert "result" in await renewed.call("echo")


async def test_a_fresh_token_of_another_user_or_a_bad_one_is_refused_and_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect("alice")
        for token, code in (("bob", "FORBIDDEN"), ("0", "UNAUTHORIZED")):
            await authenticate(client, token)
            assert (await client.answer(0))["error"]["code"] == code  # type: ignore[index]  # an error object
        assert (await client.call("echo"))["result"] == {"text": "", "user": "alice"}


@pytest.mark.parametrize(("reason", "word"), [("logout", "token_revoked"), ("reuse", "token_revoked"), ("banned", "banned")])
async def test_the_end_of_a_login_session_closes_its_sockets_and_no_others(
    reason: str, word: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        phone, laptop = await world.connect("alice/phone"), await world.connect("alice/laptop")
        world.end_session("alice", "phone", reason)
        assert await phone.message() == {"event": "session.ended", "channel": "user:alice", "data": {"reason": reason}}
        ended = await phone.end()
        assert (ended.code, ended.reason) == (1008, word)
        assert "result" in await laptop.call("echo")


@pytest.mark.parametrize(("is_answered", "took_s"), [(True, 0), (False, 2)])
async def test_what_is_under_way_when_its_session_ends_may_still_be_answered_for_two_seconds(
    is_answered: bool, took_s: float, autojump_clock: MockClock
) -> None:
    """It may be the very logout. Meanwhile nothing else is served, and no event shown."""
    async with open_world() as world:
        client = await world.connect()
        await client.call("subscribe", channels="all")
        await client.say({"id": 5, "method": "wait", "params": {"text": "gate"}})
        await client.say({"id": 6, "method": "echo"})
        await wait_all_tasks_blocked()
        world.end_session("alice")
        began_s = trio.current_time()
        world.post("a")
        await client.say({"id": 7, "method": "echo"})
        if is_answered:
            world.gates["gate"].set()
        assert (await client.message())["event"] == "session.ended"
        if is_answered:
            assert (await client.message())["id"] == 5
        with pytest.raises(Ended) as caught:
            await client.message()
        assert (caught.value.code, caught.value.reason) == (1008, "token_revoked")
        assert took_s <= trio.current_time() - began_s <= took_s + 0.3
        assert world.log[:1] == ["begin gate"]
        assert not [line for line in world.log if line.startswith("echo")]


async def test_a_revocation_that_no_signal_brought_ends_the_socket_at_its_next_command(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        world.tokens.revoked["alice-main"] = None
        assert (await client.call("echo"))["error"]["code"] == "TOKEN_REVOKED"  # type: ignore[index]  # an error object
        ended = await client.end()
        assert (ended.code, ended.reason) == (1008, "token_revoked")
        assert world.log == []


async def test_signals_that_cannot_be_read_are_passed_over(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        for name in ("session.ended", "membership"):
            for data in (b"", b"[]", b'{"user_id": 5}'):
                world.hub.signal(name, data)
        assert "result" in await client.call("echo")


# -- capacity


async def test_over_the_limit_it_refuses_before_the_upgrade_and_names_the_setting(autojump_clock: MockClock) -> None:
    async with open_world(GatewayLimits(sockets_max=2)) as world:
        first, _ = await world.connect(), await world.connect()
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                refused = await world.begin("alice").upgraded()
                assert (refused.status, refused.headers["retry-after"]) == (503, "5")
                assert msgspec.json.decode(refused.body)["error"]["code"] == "SERVER_AT_CAPACITY"
        assert [line["setting"] for line in lines] == ["SECURECONNECT_SOCKETS_MAX"]
        assert world.gateway.counters.refused == 3
        await first.close()
        await first.end()
        first.transport.abort()
        await wait_all_tasks_blocked()
        await world.connect()


async def test_a_bad_handshake_is_refused_and_its_connection_ended(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin("alice", headers={"sec-websocket-version": "8"})
        assert (await client.upgraded()).status == 426
        assert (await client.end()).code == 1006


async def test_a_refused_peer_that_does_not_read_or_end_is_let_go(autojump_clock: MockClock) -> None:
    """Its transport ends within the write deadline and the close deadline (asserted by the kit)."""
    async with open_world() as world:
        world.begin("0", window_bytes=10)
        world.begin("0")
        await trio.sleep(15)


# -- commands


async def test_commands_are_answered_in_the_order_of_arrival_under_their_ids(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        for n in range(20):
            await client.say({"id": f"c{n}", "method": "echo", "params": {"text": str(n)}})
        assert [(await client.message())["id"] for _ in range(20)] == [f"c{n}" for n in range(20)]
        assert world.log == [f"echo {n}" for n in range(20)]


async def test_a_parallel_command_does_not_wait_for_one_in_turn(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.say({"id": 1, "method": "wait", "params": {"text": "turn"}})
        await client.say({"id": 2, "method": "wait.aside", "params": {"text": "aside"}})
        await client.say({"id": 3, "method": "echo", "params": {"text": "later"}})
        await wait_all_tasks_blocked()
        assert sorted(world.log) == ["begin aside", "begin turn"]
        world.gates["aside"].set()
        assert (await client.message())["id"] == 2
        world.gates["turn"].set()
        assert [(await client.message())["id"] for _ in range(2)] == [1, 3]


async def test_so_many_commands_may_wait_then_reading_stops_and_goes_on(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.say({"id": 0, "method": "wait", "params": {"text": "gate"}})
        for n in range(1, 81):
            await client.say({"id": n, "method": "echo", "params": {"text": "x" * 1000}})
            await wait_all_tasks_blocked()
        unread_bytes = client.transport.unsent_bytes  # type: ignore[attr-defined]  # of the memory transport
        assert 80 - 32 - 20 < unread_bytes / 1000 < 80 - 32 + 5, "about 32 commands and one read were taken"
        world.gates["gate"].set()
        assert [(await client.message())["id"] for _ in range(81)] == list(range(81))


async def test_while_commands_hold_up_the_reading_silence_is_not_idleness(autojump_clock: MockClock) -> None:
    async with open_world(GatewayLimits(commands_waiting_max=1, idle_s=5, ping_s=2)) as world:
        client = await world.connect()
        await client.say({"id": 0, "method": "wait", "params": {"text": "gate"}})
        await client.say({"id": 1, "method": "echo"})
        await trio.sleep(20)
        world.gates["gate"].set()
        assert [(await client.message())["id"] for _ in range(2)] == [0, 1]


async def test_a_command_over_its_deadline_is_answered_and_the_next_one_served(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        await client.say({"id": 1, "method": "wait", "params": {"text": "never"}})
        await client.say({"id": 2, "method": "echo"})
        with trio.move_on_after(29):
            while True:
                assert (await client.receive())[0] == PING
                await client.send(frame(b"", PONG))
        first = await client.message()
        assert (first["id"], first["error"]["code"]) == (1, "REQUEST_TIMEOUT")  # type: ignore[index]  # an error object
        assert trio.current_time() - began_s == pytest.approx(30)
        assert (await client.message())["id"] == 2


async def test_a_bug_in_an_operation_is_one_answer_and_no_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        assert (await client.call("fail"))["error"]["code"] == "INTERNAL_ERROR"  # type: ignore[index]  # an error object
        assert "result" in await client.call("echo")
        assert world.dispatcher.counters.unexpected == 1


async def test_a_bug_in_the_socket_itself_ends_that_socket_with_1011(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        client, other = await world.connect(), await world.connect()

        def fails(self: Session, payload: bytes) -> None:
            raise RuntimeError("a bug")

        with monkeypatch.context() as broken:
            broken.setattr(Session, "received", fails)
            await client.say({"id": 1, "method": "echo"})
            ended = await client.end()
        assert (ended.code, ended.reason) == (1011, "internal")
        assert world.gateway.counters.unexpected == 1
        world.gateway.counters.unexpected = 0
        assert "result" in await other.call("echo")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"id": 1, "method": "nothing"}, "METHOD_NOT_FOUND"),
        ({"id": 1, "method": "http.only"}, "METHOD_NOT_FOUND"),
        ({"id": 1, "method": "echo", "params": {"text": 5}}, "VALIDATION_ERROR"),
        ({"id": 1, "method": "subscribe"}, "VALIDATION_ERROR"),
        ({"id": 1, "method": "typing", "params": {"conversation_id": "zz"}}, "NOT_FOUND"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_its_word(sent: object, code: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.say(sent)
        answer = await client.answer(1)
        assert answer["error"]["code"] == code  # type: ignore[index]  # an error object


async def test_a_binary_frame_is_answered_and_the_socket_stays(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.send(frame(b'{"id":1,"method":"echo"}', BINARY))
        assert (await client.answer(None))["error"]["code"] == "VALIDATION_ERROR"  # type: ignore[index]  # an error object
        assert "result" in await client.call("echo")


async def test_ping_is_answered_as_an_event_and_under_its_id(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.say({"method": "ping"})
        pong = await client.message()
        assert pong["event"] == "pong"
        assert isinstance(pong["data"], dict)
        assert set(pong["data"]) == {"server_time"}
        assert set((await client.call("ping"))["result"]) == {"server_time"}  # type: ignore[call-overload]  # an object
        await client.send(frame(b"are you there", PING))
        client.events.clear()
        assert await client.receive() == (PONG, b"are you there")


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(b"\xff"), 1007, "bad_utf8"),
        (frame(b"{}", is_masked=False), 1002, "unmasked"),
        (frame(b"x" * 2000), 1009, "too_big"),
        (frame(b"", 0x3), 1002, "reserved_opcode"),
        (frame(b"\x03", CLOSE), 1002, "bad_close"),
    ],
)
async def test_a_broken_frame_closes_with_its_code(data: bytes, code: int, reason: str, autojump_clock: MockClock) -> None:
    async with open_world(GatewayLimits(message_bytes_max=1000)) as world:
        client = await world.connect()
        await client.send(data)
        ended = await client.end()
        assert (ended.code, ended.reason) == (code, reason)


async def test_before_authentication_only_small_messages_are_taken(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        stranger, friend = world.begin(), world.begin()
        for client in (stranger, friend):
            await client.upgraded()
        await stranger.send(frame(b"x" * 20_000))
        assert (await stranger.end()).code == 1009
        await authenticate(friend, "alice")
        await friend.answer(0)
        assert "result" in await friend.call("echo", text="x" * 50_000)


# -- clocks


async def test_a_silent_peer_is_pinged_and_after_a_minute_closed_1001_idle(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s, pinged_s = trio.current_time(), []
        while (found := await client.receive())[0] == PING:
            pinged_s.append(round(trio.current_time() - began_s))
        assert pinged_s == [25, 50]
        assert found == (CLOSE, (1001).to_bytes(2, "big") + b"idle")
        assert 60 <= trio.current_time() - began_s <= 61


async def test_a_peer_that_answers_pings_stays(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        for _ in range(10):
            assert await client.receive() == (PING, b"")
            await client.send(frame(b"", PONG))
        assert trio.current_time() > 240
        assert "result" in await client.call("echo")


async def test_a_peer_that_speaks_is_not_pinged(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        for _ in range(10):
            await trio.sleep(20)
            await client.say({"method": "ping"})
            opcode, _ = await client.receive()
            assert opcode != PING


# -- drain


async def drained(world: World, grace_s: float) -> float:
    """Seconds that the drain took."""
    began_s = trio.current_time()
    await world.gateway.drain(grace_s)
    return trio.current_time() - began_s


async def leaves_when_told(client: SocketClient, came_back_s: list[float]) -> None:
    """A good client: told when to come back, served until then, closed with 1012 at that time."""
    notice = await client.message()
    assert notice["event"] == "drain"
    now_s = trio.current_time()
    told_s = notice["data"]["reconnect_in_ms"] / 1000  # type: ignore[index]  # the event's data
    assert "result" in await client.call("echo")
    ended = await client.end()
    assert (ended.code, ended.reason) == (1012, "drain")
    assert trio.current_time() - now_s == pytest.approx(told_s, abs=0.2)
    came_back_s.append(trio.current_time())
    await client.close(1012)
    client.transport.abort()


async def test_a_drain_tells_everybody_when_to_come_back_and_serves_until_then(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        clients = [await world.connect() for _ in range(100)]
        came_back_s: list[float] = []
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(leaves_when_told, client, came_back_s)
            took_s = await drained(world, 30)
        assert took_s < 5, "a hundred sockets need no half minute"
        assert max(came_back_s) - min(came_back_s) > 1, "they do not come back all at once"
        refused = await world.begin("alice").upgraded()
        assert refused.status == 503


async def test_peers_that_do_not_read_or_answer_do_not_hold_a_drain(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(5):
            await world.connect()  # reads nothing more, answers nothing
        for _ in range(5):
            stalled = await world.connect(window_bytes=2000)
            for _ in range(20):
                await stalled.say({"id": 1, "method": "echo", "params": {"text": "x" * 1000}})
        began_s = trio.current_time()
        came_back_s: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaves_when_told, await world.connect(), came_back_s)
            await world.gateway.drain(4)
        assert trio.current_time() - began_s <= 4.5
        assert came_back_s
        assert world.gateway.sockets == 0 or await _none_left(world)


async def _none_left(world: World) -> bool:
    await wait_all_tasks_blocked()
    return world.gateway.sockets == 0


async def test_a_grace_shorter_than_the_close_handshake_is_kept(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(10):
            await world.connect()  # answers no close frame
        assert await drained(world, 1) == pytest.approx(1)


async def test_a_drain_lets_a_command_end_that_is_under_way(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        await client.say({"id": 1, "method": "wait", "params": {"text": "gate"}})
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.gateway.drain, 30)
            await trio.sleep(8)
            world.gates["gate"].set()
            assert (await client.message())["event"] == "drain"
            assert (await client.message())["id"] == 1
            assert (await client.end()).code == 1012


async def test_a_drain_of_nobody_is_over_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        assert await drained(world, 30) == 0
