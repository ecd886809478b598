"""One connection against a server that does what a test tells it to: bytes that are wrong, late, torn, or missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from secureconnect.backends.redis.address import Address
from secureconnect.backends.redis.connection import Connection, Limits, connect
from secureconnect.backends.redis.replies import CommandRefused, ConnectionLost, Reply, ScriptUnknown
from secureconnect.errors import BackendDown, Overloaded, SecureConnectError, StorageFull

pytestmark = pytest.mark.anyio

GREETING = b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
FAST = Limits(connect_s=0.5, answer_s=0.2)
Play = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def serving(play: Play, greeting: bytes = GREETING) -> AsyncIterator[Address]:
    """A server that answers the greeting and then plays. The connection ends with the play."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(greeting)
            try:
                await play(stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield Address("127.0.0.1", listener.extra(SocketAttribute.local_port))
        tasks.cancel_scope.cancel()


def answering(*answers: bytes) -> Play:
    """Each of these to one packet; then silence."""

    async def play(stream: SocketStream) -> None:
        for answer in answers:
            await stream.receive()
            await stream.send(answer)
        await anyio.sleep_forever()

    return play


async def silent(stream: SocketStream) -> None:
    await anyio.sleep_forever()


async def refused_by(connection: Connection) -> SecureConnectError:
    with anyio.fail_after(5), pytest.raises(SecureConnectError) as refused:
        await connection.command("GET", "x")
    return refused.value


async def test_it_speaks_resp3_and_says_who_it_is_and_which_database() -> None:
    heard: list[bytes] = []

    async def handle(stream: SocketStream) -> None:
        async with stream:
            heard.append(await stream.receive())
            await stream.send(GREETING)
            heard.append(await stream.receive())
            await stream.send(b"+OK\r\n")
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        address = Address("127.0.0.1", listener.extra(SocketAttribute.local_port), 3, None, "secret")
        async with connect(address, "me"):
            pass
        tasks.cancel_scope.cancel()
    assert heard[0].split(b"\r\n")[2::2] == [b"HELLO", b"3", b"AUTH", b"default", b"secret", b"SETNAME", b"me"]
    assert heard[1].split(b"\r\n")[2::2] == [b"SELECT", b"3"]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"#f\r\n", False), (b"#t\r\n", True), (b"_\r\n", None), (b":5\r\n", 5), (b",1.5\r\n", 1.5), (b"$0\r\n\r\n", b""),
        (b"*2\r\n:1\r\n#f\r\n", [1, False]), (b"%1\r\n+a\r\n:1\r\n", {b"a": 1}), (b"~1\r\n:1\r\n", [1]), (b"+OK\r\n", b"OK"),
    ],
)  # fmt: skip
async def test_every_kind_of_reply_arrives_a_false_one_too(answer: bytes, value: Reply) -> None:
    async with serving(answering(answer)) as address, connect(address, "me") as connection:
        with anyio.fail_after(5):
            assert await connection.command("GET", "x") == value


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", StorageFull),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", StorageFull),
        (b"-LOADING Redis is loading the dataset in memory\r\n", BackendDown),
        (b"-BUSY Redis is busy running a script\r\n", BackendDown),
        (b"-MASTERDOWN Link with MASTER is down\r\n", BackendDown),
        (b"-NOPERM no permissions\r\n", BackendDown),
        (b"-ERR max number of clients reached\r\n", BackendDown),
        (b"-NOSCRIPT No matching script\r\n", ScriptUnknown),
        (b"-WRONGTYPE Operation against a key\r\n", CommandRefused),
        (b"-ERR unknown command\r\n", CommandRefused),
    ],
)
async def test_what_the_server_refuses_is_an_error_of_the_house_and_the_connection_goes_on(
    answer: bytes, error: type[SecureConnectError]
) -> None:
    async with serving(answering(answer, b"+OK\r\n")) as address, connect(address, "me") as connection:
        assert type(await refused_by(connection)) is error
        assert await connection.command("GET", "x") == b"OK"


@pytest.mark.parametrize(
    "answer", [b"-READONLY You can't write against a read only replica.\r\n", b"-NOAUTH Authentication required.\r\n"]
)
async def test_a_server_that_is_no_longer_the_right_one_ends_the_connection(answer: bytes) -> None:
    async with serving(answering(answer)) as address, connect(address, "me") as connection:
        assert type(await refused_by(connection)) is BackendDown
        with anyio.fail_after(5):
            await connection.lost.wait()
        assert connection.why == answer[1:].decode().strip()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not the Redis protocol"),
        (b"\x00\xff\x17garbage\r\n", "not the Redis protocol"),
        (b":12x\r\n", "not the Redis protocol"),
        (b"*-7\r\n", "not the Redis protocol"),
        (b"$9999999\r\nshort", "no answer within"),
        (b"*3\r\n:1\r\n", "no answer within"),
        (b"+OK\r\n+OK\r\n", "out of step"),
        (b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", "out of step"),
    ],
)
async def test_what_cannot_be_understood_ends_the_connection_and_says_why(answer: bytes, why: str) -> None:
    async with serving(answering(answer)) as address, connect(address, "me", limits=FAST) as connection:
        with anyio.fail_after(5):
            with suppress(ConnectionLost):
                await connection.command("GET", "x")
            await connection.lost.wait()
        assert why in connection.why
        with pytest.raises(ConnectionLost, match=why) as lost:
            await connection.command("GET", "x")
        assert not lost.value.was_sent


async def test_a_reply_without_end_is_not_collected_for_ever() -> None:
    async def play(stream: SocketStream) -> None:
        await stream.send(b"$99999999\r\n")
        while True:
            await stream.send(b"x" * 1_000)

    limits = Limits(reply_bytes_max=100_000)
    async with serving(play) as address, connect(address, "me", limits=limits) as connection:
        with anyio.fail_after(5):
            await connection.lost.wait()
        assert "over 100000 bytes" in connection.why


async def test_a_push_between_replies_is_no_reply() -> None:
    pushes: list[list[Reply]] = []
    push = b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$1\r\nd\r\n"
    play = answering(push + b"+1\r\n" + push, b"+2\r\n")
    async with serving(play) as address, connect(address, "me", on_push=pushes.append) as connection:
        assert await connection.command("GET", "x") == b"1"
        assert await connection.command("GET", "x") == b"2"
    assert pushes == [[b"message", b"t", b"d"]] * 2


async def test_replies_and_pushes_torn_anywhere_are_put_together() -> None:
    pushes: list[list[Reply]] = []
    data = b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$2\r\n\r\n\r\n" + b"*2\r\n$3\r\nabc\r\n#f\r\n"

    async def play(stream: SocketStream) -> None:
        await stream.receive()
        for n in range(len(data)):
            await stream.send(data[n : n + 1])
            await anyio.lowlevel.checkpoint()
        await anyio.sleep_forever()

    async with serving(play) as address, connect(address, "me", on_push=pushes.append) as connection:
        with anyio.fail_after(5):
            assert await connection.command("GET", "x") == [b"abc", False]
    assert pushes == [[b"message", b"t", b"\r\n"]]


async def test_a_subscription_waits_for_all_its_confirmations_and_a_refused_one_shifts_nothing() -> None:
    confirmed = b"".join(b">3\r\n$9\r\nsubscribe\r\n$1\r\n%b\r\n:1\r\n" % topic for topic in (b"a", b"b"))
    play = answering(confirmed, b"-NOPERM no\r\n", b"+mine\r\n")
    async with serving(play) as address, connect(address, "me") as connection:
        with anyio.fail_after(5):
            await connection.subscribe(["a", "b"])
            with pytest.raises(BackendDown, match="NOPERM"):
                await connection.subscribe(["c", "d", "e"])
            assert await connection.command("GET", "x") == b"mine"


async def test_a_caller_that_leaves_shifts_no_answers() -> None:
    may_answer = anyio.Event()

    async def play(stream: SocketStream) -> None:
        await stream.receive()
        await may_answer.wait()
        await stream.send(b"+late\r\n")
        await stream.receive()
        await stream.send(b"+mine\r\n")
        await anyio.sleep_forever()

    async with serving(play) as address, connect(address, "me") as connection:
        with anyio.move_on_after(0.05) as scope:
            await connection.command("GET", "x")
        assert scope.cancelled_caught
        may_answer.set()
        with anyio.fail_after(5):
            assert await connection.command("GET", "y") == b"mine"
        assert connection.line.dropped_total == 1


async def test_a_silent_server_is_noticed_by_whoever_waits() -> None:
    async with serving(silent) as address, connect(address, "me", limits=FAST) as connection:
        error = await refused_by(connection)
    assert isinstance(error, ConnectionLost)
    assert error.was_sent
    assert "no answer within" in str(error)


async def test_a_silent_server_is_noticed_when_every_caller_has_left_and_when_nobody_asks() -> None:
    async with (
        serving(silent) as address,
        connect(address, "me", limits=FAST) as asked,
        connect(address, "x", limits=FAST) as quiet,
    ):
        with anyio.move_on_after(0.01):
            await asked.command("GET", "x")
        with anyio.fail_after(5):
            await asked.lost.wait()
            await quiet.lost.wait()
        assert "no answer within" in asked.why
        assert "no answer within" in quiet.why


async def test_a_server_that_hangs_up_fails_everybody_at_once() -> None:
    async def play(stream: SocketStream) -> None:
        await stream.receive()

    errors: list[SecureConnectError] = []
    async with serving(play) as address, connect(address, "me") as connection:

        async def ask() -> None:
            errors.append(await refused_by(connection))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
    assert len(errors) == 20
    assert len(set(map(id, errors))) == 20, "an error of its own for each: they collect tracebacks"


async def test_too_much_waiting_is_refused_at_once() -> None:
    limits = Limits(requests_max=2)
    async with serving(silent) as address, connect(address, "me", limits=limits) as connection:
        for _ in range(2):
            with anyio.move_on_after(0.01):
                await connection.command("GET", "x")
        with pytest.raises(Overloaded):
            connection.command("GET", "x").send(None)


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "WRONGPASS"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "NOAUTH"),
        (b"-ERR unknown command `HELLO`\r\n", "Redis 6 or newer"),
        (b"-NOPROTO unsupported protocol version\r\n", "Redis 6 or newer"),
        (b"-DENIED Redis is running in protected mode\r\n", "DENIED"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not the Redis protocol"),
        (b"", "no greeting in time"),
    ],
)
async def test_a_server_that_does_not_let_us_in_is_down_and_says_why(greeting: bytes, says: str) -> None:
    async with serving(silent, greeting) as address:
        with anyio.fail_after(5), pytest.raises(BackendDown, match=says):
            async with connect(address, "me", limits=Limits(connect_s=0.3)):
                pytest.fail("it is not connected")


async def test_nothing_listens_there() -> None:
    async with serving(silent) as address:
        pass
    with anyio.fail_after(5), pytest.raises(ConnectionLost):
        async with connect(address, "me"):
            pytest.fail("it is not connected")


async def test_what_its_block_raises_comes_out_as_it_is() -> None:
    async with serving(silent) as address:
        with pytest.raises(KeyError):
            async with connect(address, "me"):
                raise KeyError
        with pytest.raises(ExceptionGroup) as raised:
            async with connect(address, "me"):
                raise ExceptionGroup("of the block", [KeyError(), ValueError()])
    assert raised.value.message == "of the block"


async def test_leaving_the_block_ends_every_task_also_while_a_write_is_stuck() -> None:
    async with serving(silent) as address:
        with anyio.fail_after(5):
            async with connect(address, "me") as connection:
                with anyio.move_on_after(0.05):
                    await connection.command("SET", "x", b"x" * (32 << 20))
    assert connection.lost.is_set()
