"""Ten thousand mutated HTTP connections: the front lives on, each is answered or closed, nothing unexpected happens or is left.

The mutations know the grammar: framing headers in conflict, folded and bare lines, chunk sizes and extensions, pipelines, cuts,
flipped bytes. In memory, under virtual time; a failing connection is told by its seed and number.
"""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest
import trio
from structlog.testing import capture_logs
from tests.server.front_kit import FrontWorld, HttpClient, open_front, request
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.server.asgi_bridge import Message, Receive, Send
from secureconnect.server.front_connection import FrontLimits

CONNECTIONS = 10_000
AT_ONCE = 50
ALIVE_S = 100
"""Longer than every deadline together: 75 s idle, 10 s head, 30 s body, 2 s goodbye."""
LIMITS = FrontLimits(body_bytes_max=5_000)
STATUSES = {100, 101, 200, 201, 204, 400, 401, 403, 404, 405, 408, 413, 431}
"""What bytes may earn. Not among them: 5xx, whatever is sent."""

ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*\r\n")
BODY = b'{"text":"hello","n":5}'
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
CHUNKED = b'8;e=1\r\n{"text":\r\n8\r\n"hello"}\r\n0\r\nChecksum: x\r\n\r\n'
GOOD = (
    request("GET /livez"),
    request("HEAD /livez"),
    request("POST /v1/echo", {"Content-Type": "application/json"}, BODY),
    request("POST /v1/echo", {"Transfer-Encoding": "chunked"}) + CHUNKED,
    request("POST /page?a=b", {"Transfer-Encoding": "chunked"}) + CHUNKED,
    request("PATCH /v1/things/a%20b?limit=3&tags=x&tags=y", {"Authorization": "Bearer alice"}, BODY),
    request("GET /v1/things/x?limit=1", {"Authorization": "Bearer alice", "Cookie": "a=b", "User-Agent": "fuzz/1"}),
    request("DELETE /v1/things/x", {"Authorization": "Bearer alice"}),
    request("OPTIONS /v1/echo", {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}),
    request("POST /v1/echo", {"Expect": "100-continue"}, BODY),
    request("GET /page", version="1.0"),
    request("GET http://test/livez", {"Connection": "keep-alive"}, version="1.0"),
    request("GET /v1/ws?token=alice", UPGRADE) + b"\x81\x85abcd\x09\x07\x0f\x08\x0e",
    request("GET /livez", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAA"}),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    request("GET /v1/nothing"),
    request("GET livez"),
    request("CONNECT test:443"),
    request("TRACE /page"),
)  # fmt: skip
LINES = (
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: 4\r\nContent-Length: 5", b"Content-Length: 5,5",
    b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length: 99999999999999999999", b"Content-Length : 5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding\t: chunked",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"X: a\r\n folded", b"X: a\r\n\tContent-Length: 5",
    b"X: a\nContent-Length: 5", b"X: a\rY: b", b"X: \x00", b"X: \x7f", b"X: \xff\xfe", b": empty", b"no colon", b" Host: x",
    b"Host: other", b"Host:", b"Host: a b", b"Connection: close", b"Connection: keep-alive, close", b"Expect: 100-continue",
    b"Expect: magic", b"Upgrade: websocket\r\nConnection: upgrade", b"Origin: https://evil.example", b"Origin: null",
    b"Authorization: Bearer \xff", b"Authorization: Bearer alice\r\nAuthorization: Bearer bob", b"Content-Type: text/\xff",
    b"X-Request-ID: \xe9", b"X-Forwarded-For: \xff, 1.2.3.4", b"traceparent: 00-zz", b"A: " + b"b" * 40_000,
    b"\r\n".join(b"h%d: x" % number for number in range(101)),
)  # fmt: skip
CHUNKS = (
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"5\nhello\n", b"5;" + b"x" * 300 + b"\r\nhello\r\n", b"ffffffff\r\n", b"-1\r\n",
    b"5 \r\nhello", b"2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nHost: x\r\n\r\n",
    b"0\r\n" + b"t: x\r\n" * 2_000 + b"\r\n", b"1\r\n \r\n" * 500,
)  # fmt: skip


async def page(scope: Message, receive: Receive, send: Send) -> None:
    """An application that reads the whole body and streams an answer."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"read %d" % size, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def mutated(rng: Random) -> bytes:
    """What one connection sends: one to three requests that were good once."""
    return b"".join(mutate(rng, rng.choice(GOOD)) for _ in range(rng.choice((1, 1, 2, 3))))


def mutate(rng: Random, raw: bytes) -> bytes:
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        deed = rng.choice((with_line, with_line, with_line, with_lines_ended_oddly, with_chunks, cut, flipped, spliced, repeated))
        raw = deed(rng, raw)
    return raw


def with_line(rng: Random, raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    lines.insert(rng.randrange(1, max(2, len(lines))), rng.choice(LINES))
    return b"\r\n".join(lines)


def with_lines_ended_oddly(rng: Random, raw: bytes) -> bytes:
    pieces = raw.split(b"\r\n")
    at = rng.randrange(len(pieces))
    return b"\r\n".join(pieces[:at]) + rng.choice((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"")) + b"\r\n".join(pieces[at:])


def with_chunks(rng: Random, raw: bytes) -> bytes:
    head = raw.partition(b"\r\n\r\n")[0]
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(rng.choice(CHUNKS) for _ in range(rng.randrange(1, 4)))


def cut(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def flipped(rng: Random, raw: bytes) -> bytes:
    data = bytearray(raw or b"x")
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def spliced(rng: Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.choice((rng.randbytes(rng.randrange(1, 20)), rng.choice(GOOD)[: rng.randrange(40)])) + raw[at:]


def repeated(rng: Random, raw: bytes) -> bytes:
    return raw * rng.randrange(2, 5)


async def play(world: FrontWorld, rng: Random, outcomes: Counter[str]) -> None:
    """One connection: send, perhaps in pieces, perhaps leave early; then it must end by itself."""
    client = world.connect(most_per_send=rng.choice((None, None, 7)))
    raw = mutated(rng)
    step = rng.choice((len(raw) or 1, 1 + len(raw) // 3, 1)) if len(raw) < 2_000 else len(raw)
    try:
        for at in range(0, len(raw), step):
            await client.send(raw[at : at + step])
        if rng.random() < 0.2:
            client.transport.abort()
            outcomes["left"] += 1
            return
        if rng.random() < 0.5:
            client.transport.send_eof()
        check_answers(await client.end(), outcomes)
        client.transport.abort()
    except OSError:
        outcomes["cut off"] += 1  # it sent on after our last word
        client.transport.abort()


def check_answers(said: bytes, outcomes: Counter[str]) -> None:
    """What the server said is nothing but answers. Where one ends is not asked here: that depends on requests we mutilated."""
    heads = list(ANSWER.finditer(said))
    assert not said or (heads and heads[0].start() == 0), said[:200]
    for head in heads:
        assert int(head[1]) in STATUSES, said[head.start() :][:400]
        outcomes[head[1].decode()] += 1


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
async def test_whatever_the_bytes_each_connection_is_answered_or_closed(seed: int, autojump_clock: MockClock) -> None:
    outcomes: Counter[str] = Counter()
    with capture_logs() as logs:
        async with open_front(web=page, limits=LIMITS) as world:
            await wait_all_tasks_blocked()
            baseline = trio.lowlevel.current_statistics().tasks_living
            for batch in range(CONNECTIONS // 4 // AT_ONCE):
                with trio.fail_after(ALIVE_S + 110):
                    async with trio.open_nursery() as nursery:
                        for number in range(AT_ONCE):
                            nursery.start_soon(play, world, Random(f"{seed}/{batch}/{number}"), outcomes)
                await trio.sleep(ALIVE_S)
                assert world.front.connections == 0, f"seed {seed}, batch {batch}"
                assert trio.lowlevel.current_statistics().tasks_living == baseline
            assert world.dispatcher.counters.unexpected == 0
            assert world.front.unexpected == 0
            assert (await world.connect().ask(request())).status == 200
            check_coverage(world, outcomes)
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


def check_coverage(world: FrontWorld, outcomes: Counter[str]) -> None:
    """The mutations still reach what they are for: good answers, sockets, every rule by name, and every deadline."""
    assert {"200", "204", "400", "401", "404", "405", "413", "431", "left"} <= set(outcomes), outcomes
    assert len(world.door.taken) > 20
    assert {
        "bare_line_end", "control_character", "folded_line", "request_line", "http_version", "method", "target", "host", "header",
        "repeated_header", "content_length", "length_and_chunked", "transfer_encoding", "expect", "chunk_size", "chunk_end",
        "line_too_long", "trailer", "trailer_name", "chunk_extras", "upgrade_with_body",
    } <= set(world.front.counters.malformed)  # fmt: skip
    assert world.front.counters.late > 20


async def test_what_is_good_is_not_among_the_refused(autojump_clock: MockClock) -> None:
    """A front that refused everything would pass the test above."""
    asked = [raw for raw in GOOD[:12] if b"Expect" not in raw]
    async with open_front(web=page) as world:
        for _ in range(10):
            client = world.connect(most_per_send=500)
            await pipeline(client, asked * 10)


async def pipeline(client: HttpClient, asked: list[bytes]) -> None:
    kept = [raw for raw in asked if b"HTTP/1.1" in raw]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"".join(kept))
        for raw in kept:
            got = await client.answer(head_only=raw.startswith(b"HEAD"))
            assert got.status in (200, 204), raw
