"""Bytes of one socket: short writes, readers that are slow or gone, and how a connection ends. In memory, under virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from tests.server.socket_kit import World, open_world
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.ports import Transport
from secureconnect.server.websocket import GatewayLimits
from secureconnect.testing.socket_client import CLOSE, PING, PONG, TEXT, Ended, SocketClient, frame

SMALL = GatewayLimits(outbox_bytes_max=20_000, outbox_messages_max=100)


async def listen(client: SocketClient, channel: str = "conversation:a") -> None:
    answer: Any = await client.call("subscribe", channels=[channel])
    assert "error" not in answer["result"]["channels"][channel]


def closed(world: World) -> dict[str, int]:
    return world.gateway.counters.closed


@pytest.mark.parametrize("most_per_send", [1, 7, 100])
async def test_short_writes_tear_nothing_whoever_writes(most_per_send: int, autojump_clock: MockClock) -> None:
    """Events of the pump, answers and pongs meet in front of a socket that takes a few bytes at a time."""
    async with open_world() as world:
        client = await world.connect(most_per_send=most_per_send)
        await listen(client)
        for n in range(30):
            await client.send(frame(f"p{n}".encode(), PING))
            await client.say({"id": n, "method": "echo", "params": {"text": str(n)}})
            world.post("a")
            await wait_all_tasks_blocked()
        pongs, answers, sequences = list[bytes](), list[object](), list[object]()
        while len(pongs) + len(answers) + len(sequences) < 90:
            opcode, payload = await client.receive()
            if opcode == PONG:
                pongs.append(payload)
                continue
            assert opcode == TEXT
            message = client.decoded(payload)
            (sequences if "event" in message else answers).append(message.get("sequence", message.get("id")))
        assert pongs == [f"p{n}".encode() for n in range(30)]
        assert answers == list(range(30))
        assert sequences == list(range(1, 31))


async def test_a_reader_that_stalls_is_torn_down_after_ten_seconds_and_costs_nobody_else_anything(
    autojump_clock: MockClock,
) -> None:
    async with open_world(SMALL) as world:
        stalled, other = await world.connect(window_bytes=4000), await world.connect()
        await listen(stalled)
        await listen(other)
        began_s = trio.current_time()
        for n in range(1, 200):
            world.post("a", {"text": "x" * 1000})
            event = await other.next_event()
            assert event["sequence"] == n
            assert trio.current_time() == began_s, "nobody waits for the stalled one"
        while world.gateway.sockets == 2:
            assert await other.receive() == (PING, b"")
            await other.send(frame(b"", PONG))
        assert closed(world) in ({"stalled": 1}, {"slow_consumer": 1}), "the write's ten seconds, or those of the replay"
        assert (await stalled.end()).code == 1006


async def test_a_stalled_reader_is_let_go_at_the_write_deadline(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await listen(client := await world.connect(window_bytes=4000))
        began_s = trio.current_time()
        for _ in range(10):
            world.post("a", {"text": "x" * 1000})
        await trio.sleep(9.9)
        assert closed(world) == {}
        await trio.sleep(0.2)
        assert closed(world) == {"stalled": 1}
        await trio.sleep(2)
        assert world.gateway.sockets == 0
        assert (await client.end()).code == 1006
        assert trio.current_time() - began_s < 13


async def test_a_stalled_reader_that_comes_back_in_the_last_moment_is_told_to_resume(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        await listen(client := await world.connect(window_bytes=4000))
        for _ in range(10):
            world.post("a", {"text": "x" * 1000})
        await trio.sleep(11)
        ended = await client.end()
        assert (ended.code, ended.reason) == (1013, "slow_consumer")


async def test_a_reader_of_a_few_bytes_a_second_gets_everything_in_order(autojump_clock: MockClock) -> None:
    """It makes progress, so it stays; what does not fit is replayed from the log, not dropped."""
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=2000)
        await listen(client)
        for _ in range(200):
            world.post("a", {"text": "x" * 300})
        sequences = list[object]()
        while len(sequences) < 200:
            opcode, payload = await client.receive()
            if opcode == PING:
                await client.send(frame(b"", PONG))
                continue
            sequences.append(client.decoded(payload)["sequence"])
            await trio.sleep(1)
        assert sequences == list(range(1, 201))


async def test_when_what_waited_has_left_the_pump_writes_directly_again_and_the_books_say_so(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect(window_bytes=2000)
        await listen(client)
        (peer,) = world.hub.members("conversation:a")
        for _ in range(10):
            world.post("a", {"text": "x" * 1000})
        await wait_all_tasks_blocked()
        assert (peer.direct, world.hub.ledger.delivered) == (None, 0)
        assert [(await client.message())["sequence"] for _ in range(10)] == list(range(1, 11))
        await wait_all_tasks_blocked()
        assert peer.direct is not None
        assert (world.hub.ledger.delivered, world.hub.ledger.dropped) == (10, {})


async def test_events_do_not_overtake_a_handshake_that_is_read_slowly(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = world.begin("alice", window_bytes=50)
        await trio.sleep(1)
        world.hub.publish("user:alice", "notification.created", b"{}")
        await wait_all_tasks_blocked()
        assert (await client.upgraded()).status == 101
        assert [(await client.message())["event"] for _ in range(2)] == ["hello", "notification.created"]


async def test_who_sends_on_and_never_reads_is_read_no_further_and_let_go_at_the_write_deadline(
    autojump_clock: MockClock,
) -> None:
    """TCP slows it down; what it asked for waits in a bounded line, and when nothing moves for ten seconds it ends."""
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=4000)
        sent, line = 0, 0
        with trio.move_on_after(9):
            while not closed(world):
                sent += 1
                await client.say({"id": sent, "method": "echo", "params": {"text": "x" * 1000}})
                await wait_all_tasks_blocked()
                line = max(line, waiting_bytes(world))
        assert closed(world) == {}
        assert sent < 60, "a few answers, 32 commands and what a socket holds"
        assert len(world.log) < 12, "nothing is done whose answer has no place"
        assert line <= 20_000
        await trio.sleep(2)
        assert closed(world) == {"stalled": 1}


async def test_pings_that_nobody_reads_the_pongs_of_stop_the_reader(autojump_clock: MockClock) -> None:
    async with open_world(GatewayLimits(outbox_bytes_max=20_000)) as world:
        client = await world.connect(window_bytes=1000)
        line = 0
        with trio.move_on_after(9):
            while True:
                await client.send(frame(b"x" * 125, PING) * 10)
                await wait_all_tasks_blocked()
                line = max(line, waiting_bytes(world))
        assert closed(world) == {}
        assert 10_000 < line <= 15_000, "events and control together have three quarters"
        await trio.sleep(2)
        assert closed(world) == {"stalled": 1}


class Slow:
    """A client's end that reads two thousand bytes each half second."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.peer = transport.peer
        self.send_now, self.wait_writable = transport.send_now, transport.wait_writable
        self.send_eof, self.abort = transport.send_eof, transport.abort

    async def receive(self, max_bytes: int, /) -> bytes:
        await trio.sleep(0.5)
        return await self._transport.receive(2000)


def waiting_bytes(world: World) -> int:
    lines = [socket.connection._outbox for socket in world.gateway._sockets]
    return sum(line.bytes for line in lines if line is not None)


async def test_large_answers_to_a_client_that_reads_all_arrive_whatever_they_add_up_to(autojump_clock: MockClock) -> None:
    """Each alone is larger than the outbox; none is the client's fault, and each id has exactly one answer."""
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=4000)
        for n in range(8):
            await client.say({"id": n, "method": "echo", "params": {"text": "x" * 60_000}})
        answers = [await client.message() for _ in range(8)]
        assert [answer["id"] for answer in answers] == list(range(8))
        assert closed(world) == {}


async def test_large_answers_aside_wait_for_one_another_not_in_the_line(autojump_clock: MockClock) -> None:
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=4000)
        for n in range(4):
            await client.say({"id": n, "method": "wait.aside", "params": {"text": str(n) * 60_000}})
        await wait_all_tasks_blocked()
        for gate in world.gates.values():
            gate.set()
        await wait_all_tasks_blocked()
        assert waiting_bytes(world) < 62_000, "one alone; the others wait in their tasks"
        assert sorted([(await client.message())["id"] for _ in range(4)]) == [0, 1, 2, 3]  # type: ignore[type-var]
        assert closed(world) == {}


async def test_a_large_answer_that_is_read_slowly_leaves_room_for_pongs_events_and_small_answers(
    autojump_clock: MockClock,
) -> None:
    """It takes half a minute to read, far more than the write deadline, and is read all the time."""
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=2000)
        await listen(client)
        await client.say({"id": "large", "method": "echo", "params": {"text": "x" * 120_000}})
        await wait_all_tasks_blocked()
        await client.send(frame(b"p", PING))
        await client.say({"id": "ping", "method": "ping"})
        await client.say({"id": "small", "method": "echo", "params": {"text": "small"}})
        for _ in range(5):
            world.post("a")
        await wait_all_tasks_blocked()
        client.transport = Slow(client.transport)
        assert (await client.message())["id"] == "large"
        assert await client.receive() == (PONG, b"p")
        rest = [await client.message() for _ in range(8)]
        assert rest[0]["event"] == "pong"
        assert {message["id"] for message in rest if "id" in message} == {"ping", "small"}
        assert [message["sequence"] for message in rest if "sequence" in message] == [1, 2, 3, 4, 5]
        assert closed(world) == {}


async def test_events_that_wait_behind_a_large_answer_are_not_taken_for_events_nobody_reads(autojump_clock: MockClock) -> None:
    """More events than fit, behind an answer that leaves a little at a time for half a minute: the replay waits on."""
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=2000)
        await listen(client)
        await client.say({"id": 1, "method": "echo", "params": {"text": "x" * 120_000}})
        await wait_all_tasks_blocked()
        for _ in range(60):
            world.post("a", {"text": "x" * 1000})
        client.transport = Slow(client.transport)
        assert (await client.message())["id"] == 1
        assert [(await client.message())["sequence"] for _ in range(60)] == list(range(1, 61))
        assert closed(world) == {}


async def test_a_connection_that_ends_while_answers_wait_for_room_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_world(SMALL) as world:
        gone, told = await world.connect(window_bytes=2000), await world.connect("bob", window_bytes=2000)
        for client in (gone, told):
            for n in range(3):
                await client.say({"id": n, "method": "echo", "params": {"text": "x" * 60_000}})
        await wait_all_tasks_blocked()
        gone.transport.abort()
        world.end_session("bob")
        await trio.sleep(5)
        assert world.gateway.sockets == 0


async def test_an_answer_larger_than_the_outbox_arrives_when_nothing_waits_before_it(autojump_clock: MockClock) -> None:
    async with open_world(SMALL) as world:
        client = await world.connect(window_bytes=4000)
        answer: Any = await client.call("echo", text="x" * 60_000)
        assert len(answer["result"]["text"]) == 60_000


async def test_a_close_of_the_peer_is_echoed_and_our_direction_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        await client.close(1000)
        assert [(await client.end()).code for _ in range(2)] == [1000, 1006]
        assert trio.current_time() == began_s


async def test_a_close_of_the_peer_is_echoed_after_what_waits_and_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect(window_bytes=3000)
        await listen(client)
        for _ in range(10):
            world.post("a", {"text": "x" * 1000})
        await wait_all_tasks_blocked()
        began_s = trio.current_time()
        await client.close(4321, "done")
        sequences = list[object]()
        with pytest.raises(Ended) as caught:
            await _collect(client, sequences)
        assert sequences == list(range(1, 11))
        assert (caught.value.code, caught.value.reason) == (4321, "")
        assert (await client.end()).code == 1006, "our direction ends without waiting for the peer's"
        assert trio.current_time() == began_s
        client.transport.send_eof()
        await wait_all_tasks_blocked()
        assert world.gateway.sockets == 0
        assert closed(world) == {"peer": 1}


async def _collect(client: SocketClient, sequences: list[object]) -> None:
    while True:
        sequences.append((await client.message())["sequence"])


async def test_a_peer_that_closes_and_ends_its_direction_still_gets_what_waits(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect(window_bytes=3000)
        await listen(client)
        for _ in range(10):
            world.post("a", {"text": "x" * 1000})
        await wait_all_tasks_blocked()
        await client.close()
        client.transport.send_eof()
        sequences: list[object] = []
        with pytest.raises(Ended) as caught:
            await _collect(client, sequences)
        assert sequences == list(range(1, 11))
        assert caught.value.code == 1000


async def test_a_peer_that_never_answers_a_close_is_cut_off_after_two_seconds(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        world.end_session("alice")
        await trio.sleep(1)
        assert (await client.end()).code == 1008
        assert (await client.end()).code == 1006
        assert 2 <= trio.current_time() - began_s <= 2.4


async def test_a_peer_that_goes_on_sending_after_a_close_is_cut_off_too(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        began_s = trio.current_time()
        await client.send(frame(b"\xff"))
        with pytest.raises(OSError, match=r".*"):
            await _send_for_ever(client)
        assert 2 <= trio.current_time() - began_s <= 2.4


async def _send_for_ever(client: SocketClient) -> None:
    while True:
        await client.send(frame(b"{}") * 10)
        await trio.sleep(0.01)


async def test_nothing_follows_the_close_frame(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect("alice/main/5")
        await listen(client)
        await client.say({"id": 5, "method": "wait", "params": {"text": "gate"}})
        await trio.sleep(5.5)
        assert closed(world) == {"token_expired": 1}
        world.post("a")
        world.hub.publish("user:alice", "notification.created", b"{}")
        world.gates["gate"].set()
        await client.send(frame(b"", PING))
        opcodes = []
        try:
            while True:
                opcodes.append((await client.receive())[0])
        except Ended:
            pass
        assert opcodes == [CLOSE]


async def test_a_peer_that_vanishes_with_or_without_a_reset_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        half_open, reset, silent = await world.connect(), await world.connect(), await world.connect()
        for client in (half_open, reset, silent):
            await listen(client)
        world.post("a")
        await wait_all_tasks_blocked()
        half_open.transport.send_eof()
        reset.transport.abort()
        await wait_all_tasks_blocked()
        assert world.gateway.sockets == 1
        await trio.sleep(65)
        assert world.gateway.sockets == 0
        assert closed(world) == {"lost": 2, "idle": 1}
        assert world.hub.members("conversation:a") == ()


async def test_the_end_of_the_gateway_aborts_every_socket(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        client = await world.connect()
        world.stop_gateway()
        assert (await client.end()).code == 1006
        assert closed(world) == {"stopped": 1}
        assert (await world.begin("alice").upgraded()).status == 503
