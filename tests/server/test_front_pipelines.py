"""Several requests in one breath, with errors, HEAD, old versions and expectations among them: what is answered, what ends it.

Each client also closes its side behind them: who has nothing more to ask still gets every answer.
"""

from __future__ import annotations

import re

import pytest
import trio
from tests.server.front_kit import open_front, request
from trio.testing import MockClock

from secureconnect.server.asgi_bridge import Message, Receive, Send

ECHO = b'{"text":"hello","n":5}'
ALICE = {"Authorization": "Bearer alice"}
KEEP = {"Connection": "keep-alive"}
CHUNKED = {"Transfer-Encoding": "chunked"}
EXPECT = {"Expect": "100-continue"}
LAST = request()
OLD_LAST = request(version="1.0")


async def page(scope: Message, receive: Receive, send: Send) -> None:
    status = 404 if scope["path"] == "/nothing" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


@pytest.mark.parametrize(
    ("raw", "statuses", "closes"),
    [
        # an error of one request is not the end of the next
        (request("POST /v1/echo", body=b"[]") + LAST, "400 200", False),
        (request("PATCH /v1/things/a", body=b"{}") + LAST, "401 200", False),
        (request("GET /v1/nothing") + LAST, "404 200", False),
        (request("PUT /v1/echo", CHUNKED) + b"2\r\n{}\r\n0\r\n\r\n" + LAST, "405 200", False),
        (request("GET /v1/things/%ff", ALICE) + LAST, "400 200", False),
        (request("POST /nothing") + LAST, "404 200", False),
        (request("TRACE /v1/echo") + LAST, "405 200", False),
        (request("DELETE /v1/things/a", ALICE, b"{}") + LAST, "204 200", False),
        (request("OPTIONS *") + request("OPTIONS /v1/echo", body=b"x") + LAST, "204 204 200", False),
        (request() + b"\r\n" + LAST, "200 200", False),
        # but where the next one begins is not known any longer
        (request("PUT /v1/echo", CHUNKED) + b"zz\r\n" + LAST, "405", True),
        (request("POST /v1/echo", CHUNKED) + b"zz\r\n" + LAST, "400", True),
        (request("POST /v1/echo", CHUNKED) + b"0\r\nContent-Length: 5\r\n\r\n" + LAST, "400", True),
        (request("POST /v1/echo", {"Content-Length": "9999999"}) + LAST, "413", True),
        (request("POST /page", body=b"x") + LAST, "200", True),  # which the page did not read
        (request() + b"GARBAGE\r\n\r\n" + LAST, "200 400", True),
        (request() + b"\r\n\r\n" + LAST, "200 400", True),
        (request("CONNECT test:443") + LAST, "405", True),
        (request(headers={"Connection": "close"}) + LAST, "200", True),
        (request(headers={"Connection": "keep-alive, Close"}) + LAST, "200", True),
        # HEAD: no answer's body becomes the next one's head
        (request("HEAD /livez") + LAST, "200 200", False),
        (request("HEAD /v1/nothing") + LAST, "404 200", False),
        (request("HEAD /v1/echo") + LAST, "405 200", False),
        (request("HEAD /page") + LAST, "200 200", False),
        (request("HEAD /nothing") + LAST, "404 200", False),
        (request("HEAD /livez", body=b"xx") + LAST, "200 200", False),
        # HTTP/1.0 ends after each answer unless both sides say otherwise
        (OLD_LAST + LAST, "200", True),
        (request("GET /livez", KEEP, version="1.0") + OLD_LAST, "200 200", True),
        (request("GET /v1/nothing", KEEP, version="1.0") + OLD_LAST, "404 200", True),
        (request("HEAD /page", KEEP, version="1.0") + OLD_LAST, "200 200", True),
        (request("DELETE /v1/things/a", {**ALICE, **KEEP}, version="1.0") + OLD_LAST, "204 200", True),
        # what is expected is said only to who waits for it
        (request("POST /v1/echo", EXPECT, ECHO) + LAST, "200 200", False),
        (request("POST /v1/echo", {"Expect": "100-Continue"}, ECHO) + LAST, "200 200", False),
        (request("POST /v1/wait", EXPECT, b"") + LAST, "200 200", False),
        (request("GET /livez", EXPECT) + LAST, "200 200", False),
        (request("GET /page", EXPECT) + LAST, "200 200", False),
        (request("POST /v1/echo", EXPECT, ECHO, version="1.0"), "200", True),
        (request("POST /v1/nothing", {**EXPECT, "Content-Length": "5"}), "404", True),
        (request("POST /nothing", {**EXPECT, "Content-Length": "5"}), "404", True),
        (request("POST /v1/echo", {"Expect": "magic"}, ECHO) + LAST, "400", True),
    ],
)
async def test_what_is_answered_of_several_requests(raw: bytes, statuses: str, closes: bool, autojump_clock: MockClock) -> None:
    async with open_front(web=page) as world:
        world.table.gate.set()
        client = world.connect(most_per_send=50)
        await client.send(raw)
        client.transport.send_eof()
        said = await client.end()
        client.transport.abort()
    assert " ".join(re.findall(r"HTTP/1\.1 (\d{3}) ", said.decode())) == statuses
    assert (b"Connection: close" in said) is closes
    assert trio.current_time() == 0
