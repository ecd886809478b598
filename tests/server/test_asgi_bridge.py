"""Foreign ASGI applications under the front: every shape of answer, every way to misbehave, and our clocks around them."""

from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs
from tests.server.front_kit import Ended, HttpClient, open_front, request, transport_of
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.server.asgi_bridge import Message, Receive, Send
from secureconnect.server.front_connection import HALF_CLOSED_S, FrontLimits


async def whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    return body


class App:
    """Answers by the path; notes what it was given and how it ended."""

    def __init__(self) -> None:
        self.scopes: list[Message] = []
        self.notes: list[str] = []
        self.gate = trio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            await getattr(self, scope["path"].strip("/").replace("/", "_") or "index")(scope, receive, send)
        except trio.Cancelled:
            self.notes.append("cancelled")
            raise
        except OSError:
            self.notes.append("gone")
            raise

    async def start(self, send: Send, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def index(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 200, (b"X-A", b"1"), (b"connection", b"keep-alive"), (b"date", b"never"))
        await send({"type": "http.response.body", "body": b"hello"})

    async def told(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 200, (b"content-length", b"5"))
        for piece in (b"he", b"llo", b""):
            await send({"type": "http.response.body", "body": piece, "more_body": bool(piece)})

    async def stream(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def echo(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        await self.start(send)
        await send({"type": "http.response.body", "body": body})
        assert (await receive())["type"] == "http.disconnect"  # the answer is whole: told at once
        self.notes.append("told")

    async def duplex(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def aside(self, scope: Message, receive: Receive, send: Send) -> None:
        """As frameworks do it: one task watches for the peer's leaving while another answers; ends when both have."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.notes.append("told")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.gate.wait()
            await self.index(scope, receive, send)

    async def closing(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 200, (b"connection", b"close"))
        await send({"type": "http.response.body", "body": b"bye"})

    async def empty(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 204, (b"content-length", b"0"))
        await send({"type": "http.response.body", "body": b""})

    async def short(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 200, (b"content-length", b"10"))
        await send({"type": "http.response.body", "body": b"hello"})

    async def long(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send, 200, (b"content-length", b"2"))
        await send({"type": "http.response.body", "body": b"hello"})

    async def silent(self, scope: Message, receive: Receive, send: Send) -> None:
        return

    async def stuck(self, scope: Message, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async def halfway(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a bug")

    async def broken(self, scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("a bug")

    async def breathing(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        for _ in range(10):
            await trio.sleep(20)
            await send({"type": "http.response.body", "body": b".", "more_body": True})
        await send({"type": "http.response.body"})

    async def breathless(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await trio.sleep_forever()

    async def huge(self, scope: Message, receive: Receive, send: Send) -> None:
        await self.start(send)
        await send({"type": "http.response.body", "body": b"x" * 1_000_000})

    async def watching(self, scope: Message, receive: Receive, send: Send) -> None:
        await whole_body(receive)
        self.notes.append((await receive())["type"])
        await self.start(send)


@pytest.mark.parametrize(("path", "body"), [("/", b"hello"), ("/told", b"hello"), ("/stream", b"onetwo"), ("/long", b"he")])
async def test_every_shape_of_answer_is_framed_and_the_connection_goes_on(
    path: str, body: bytes, autojump_clock: MockClock
) -> None:
    async with open_front(web=App()) as world:
        client = world.connect(most_per_send=3)
        for _ in range(2):
            got = await client.ask(request(f"GET {path}"))
            assert (got.status, got.body) == (200, body)
            assert "connection" not in got.headers
            assert got.headers["server"] == "secureconnect"


async def test_what_the_application_is_told_of_a_request(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app, proxies=["10.0.0.0/8"]) as world:
        client = world.connect(peer="10.0.0.1:5")
        headers = {"X-Forwarded-For": "198.51.100.7", "X-A": "1", "x-a": "2"}
        await client.ask(request("POST /ech%6F?a=%20", headers, b"x"))
        assert (await client.ask(request("POST /echo", body=b"hello"))).body == b"hello"
        assert (await client.ask(request("GET http://test/told"))).body == b"hello"
    scope = app.scopes[0]
    assert (scope["type"], scope["method"], scope["path"], scope["raw_path"]) == ("http", "POST", "/echo", b"/ech%6F")
    assert (scope["query_string"], scope["http_version"], scope["client"]) == (b"a=%20", "1.1", ("198.51.100.7", 0))
    assert (b"x-a", b"1, 2") in scope["headers"]
    assert app.notes == ["told", "told"]


async def test_operations_and_unknown_api_paths_never_reach_the_application(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect()
        assert (await client.ask(request())).status == 200
        assert (await client.ask(request("GET /v1/nothing"))).status == 404
        assert (await client.ask(request("PUT /v1/echo"))).status == 405
    assert app.scopes == []


async def test_a_steady_reader_of_a_large_page_may_take_longer_than_a_request(autojump_clock: MockClock) -> None:
    """The write's own clock asks for progress; the request's clock is for an application that says nothing."""

    async def large(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 400_000})

    async with open_front(web=large) as world:
        client = world.connect()
        await client.send(request("GET /large"))
        taken = 0
        while taken < 400_000:
            piece = await client.transport.receive(10_000)
            assert piece, f"cut off after {taken} bytes"
            taken += len(piece)
            await trio.sleep(1)
        assert trio.current_time() > 30


async def test_lengths_that_an_application_tells_twice_leave_as_one(autojump_clock: MockClock) -> None:
    async def twice(scope: Message, receive: Receive, send: Send) -> None:
        lengths = [(b"content-length", b"many"), (b"Content-Length", b"2"), (b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": lengths})
        await send({"type": "http.response.body", "body": b"ok"})

    async with open_front(web=twice) as world:
        client = world.connect()
        await client.send(request("GET /twice"))
        assert (await client.transport.receive(65_536)).lower().count(b"content-length") == 1


async def test_a_head_and_an_old_client_are_framed_as_they_must_be(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        for path in ("/stream", "/told", "/"):
            got = await client.ask(request(f"HEAD {path}"))
            assert (got.status, got.body) == (200, b"")
            assert "transfer-encoding" not in got.headers
        got = await client.ask(request("GET /empty"))
        assert (got.status, "content-length" in got.headers) == (204, False)
        old = await client.ask(request("GET /stream", {"Connection": "keep-alive"}, version="1.0"))
        assert (old.body, old.headers["connection"]) == (b"onetwo", "close")
        known = await world.connect().ask(request("GET /", {"Connection": "keep-alive"}, version="1.0"))
        assert (known.body, known.headers["connection"]) == (b"hello", "keep-alive")


async def test_the_applications_close_is_honoured(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        assert (await client.ask(request("GET /closing"))).headers["connection"] == "close"
        assert await client.end() == b""


async def test_a_task_that_watches_is_told_when_the_answer_is_whole(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect()
        await client.send(request("GET /aside"))
        await wait_all_tasks_blocked()
        app.gate.set()
        assert (await client.answer()).body == b"hello"
        assert (await client.ask(request())).status == 200
        assert (app.notes, trio.current_time()) == (["told"], 0.0)


async def test_a_body_that_the_application_did_not_read_never_becomes_a_request(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        got = await client.ask(request("POST /", body=request("GET /livez")))
        assert (got.body, got.headers["connection"]) == (b"hello", "close")
        assert await client.end() == b""
        assert world.front.counters.requests == 1


async def test_bodies_stream_in_and_out_with_expect(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        await client.send(request("POST /duplex", {"Transfer-Encoding": "chunked", "Expect": "100-continue"}))
        assert (await client.answer()).status == 100
        for piece in (b"one", b"two"):
            await client.send(b"3\r\n" + piece + b"\r\n")
            if piece == b"one":
                assert (await client._until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await client._exactly(8) == b"3\r\n" + piece + b"\r\n"
        await client.send(b"0\r\n\r\n")
        assert await client._exactly(5) == b"0\r\n\r\n"
        expecting = request("POST /echo", {"Expect": "100-continue", "Content-Length": "5"})
        other = world.connect()
        assert (await other.ask(expecting)).status == 100
        assert (await other.ask(b"hello")).body == b"hello"


@pytest.mark.parametrize("path", ["/broken", "/silent"])
async def test_an_application_that_gives_no_answer_is_a_500(path: str, autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        with capture_logs() as logs:
            got = await client.ask(request(f"GET {path}"))
        assert (got.status, got.error["code"]) == (500, "INTERNAL_ERROR")
        assert "bug" not in got.body.decode()
        assert [entry["event"] for entry in logs] == ["unexpected" if path == "/broken" else "bad_answer"]
        assert world.front.unexpected == 1
        assert (await client.ask(request("GET /"))).status == 200


Start = tuple[object, list[tuple[object, ...]]]


@pytest.mark.parametrize(
    ("start", "body", "problem"),
    [
        ((200, [(b"x-a", b"1\r\nEvil: 1")]), b"", "control character"),
        ((200, [(b"x-a", b"1\nEvil: 1")]), b"", "control character"),
        ((200, [(b"x-a", b"1\0")]), b"", "control character"),
        ((200, [(b"x-a\r\nEvil", b"1")]), b"", "header name"),
        ((200, [(b"x a", b"1")]), b"", "header name"),
        ((200, [(b"x-a:", b"1")]), b"", "header name"),
        ((200, [(b"", b"1")]), b"", "header name"),
        ((200, [("x-a", "1")]), b"", "byte string"),
        ((200, [(b"x-a", 10)]), b"", "byte string"),
        ((100, []), b"", "status"),
        ((101, []), b"", "status"),
        ((103, []), b"", "status"),
        ((0, []), b"", "status"),
        ((-200, []), b"", "status"),
        ((1000, []), b"", "status"),
        (("200 OK", []), b"", "status"),
        ((204, []), b"x", "no body"),
        ((205, []), b"x", "no body"),
        ((304, [(b"content-length", b"1")]), b"x", "no body"),
        ((200, []), "text", "byte string"),
        ((200, []), 5, "byte string"),
        (None, b"x", "before its start"),
    ],
)
@pytest.mark.parametrize("swallows", [False, True])
async def test_an_answer_that_is_none_is_a_500_before_a_byte_of_it_is_written(
    start: Start | None, body: object, problem: str, *, swallows: bool, autojump_clock: MockClock
) -> None:
    """A value that ends its line would let whoever chose it write the rest of the answer."""

    async def speak(send: Send) -> None:
        if start is not None:
            await send({"type": "http.response.start", "status": start[0], "headers": start[1]})
        await send({"type": "http.response.body", "body": body})

    async def bad(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/good":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"good"})
        for _ in range(2 if scope["path"] == "/bad" else 0):
            try:
                await speak(send)
            except Exception:
                if not swallows:
                    raise

    async with open_front(web=bad) as world:
        client = world.connect()
        with capture_logs() as logs:
            got = await client.ask(request("GET /bad", {"X-Request-ID": "mine"}))
        assert (got.status, got.error["code"], got.headers["x-request-id"]) == (500, "INTERNAL_ERROR", "mine")
        assert "evil" not in got.headers
        assert [(entry["event"], entry["path"]) for entry in logs] == [("bad_answer", "/bad")]
        assert problem in logs[0]["problem"]
        assert world.front.unexpected == 1
        assert (await client.ask(request("GET /good"))).body == b"good"
        assert client.unread == b""


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, "0"), (304, "7")])
async def test_an_answer_without_a_body_ends_with_its_head(status: int, length: str | None, autojump_clock: MockClock) -> None:
    async def bodiless(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "more_body": status != 205})
        await send({"type": "http.response.body"})

    async with open_front(web=bodiless) as world:
        client = world.connect()
        for _ in range(2):
            await client.send(request("GET /"))
            got = await client.answer(head_only=True)
            assert (got.status, got.headers.get("content-length")) == (status, length)
            await wait_all_tasks_blocked()
            assert transport_of(client).unread_bytes == 0


@pytest.mark.parametrize("path", ["/halfway", "/breathless"])
async def test_an_answer_that_is_not_finished_is_torn_so_that_it_shows(path: str, autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        with capture_logs(), pytest.raises(Ended):
            await client.ask(request(f"GET {path}"))
        await wait_all_tasks_blocked()
        assert world.front.connections == 0


async def test_an_answer_shorter_than_told_ends_the_connection(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        with pytest.raises(Ended, match="hello"):
            await world.connect().ask(request("GET /short"))


async def test_an_application_that_says_nothing_is_504_after_its_deadline(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect()
        got = await client.ask(request("GET /stuck"))
        assert (trio.current_time(), got.status, got.error["code"]) == (30.0, 504, "REQUEST_TIMEOUT")
        assert app.notes == ["cancelled"]
        assert (await client.ask(request("GET /"))).status == 200


async def test_a_stream_that_breathes_goes_on(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        got = await slow_answer(world.connect(), request("GET /breathing"))
        assert got.endswith(b"0\r\n\r\n")
        assert trio.current_time() == 200


async def slow_answer(client: HttpClient, asked: bytes) -> bytes:
    await client.send(asked)
    got = b""
    while not got.endswith(b"0\r\n\r\n"):
        piece = await client.transport.receive(10_000)
        assert piece, "it was cut off"
        got += piece
    return got


async def test_a_peer_that_does_not_read_a_page_is_cut_off(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect(window_bytes=1000)
        await client.send(request("GET /huge"))
        await trio.sleep(10.1)
        assert (world.front.connections, app.notes) == (0, ["gone"])
        assert world.front.unexpected == 0


async def test_a_peer_that_leaves_is_told_to_the_application(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect()
        await client.send(request("POST /watching", body=b"x"))
        await wait_all_tasks_blocked()
        client.transport.abort()
        await trio.sleep(HALF_CLOSED_S + 0.1)
        assert (app.notes, world.front.connections, world.front.unexpected) == (["http.disconnect", "gone"], 0, 0)


async def test_a_peer_that_half_closes_gets_the_page_that_it_asked_for(autojump_clock: MockClock) -> None:
    """Frameworks end a page when they hear that its reader left; who has only nothing more to ask has not."""
    app = App()
    async with open_front(web=app) as world:
        client = world.connect()
        await client.send(request("GET /aside"))
        client.transport.send_eof()
        await trio.sleep(HALF_CLOSED_S - 0.1)
        assert app.notes == []
        app.gate.set()
        assert (await client.answer()).body == b"hello"
        assert await client.end() == b""


async def test_what_arrives_while_the_application_watches_is_kept_up_to_a_bound(autojump_clock: MockClock) -> None:
    app = App()
    async with open_front(web=app) as world:
        client = world.connect(window_bytes=10_000)
        await client.send(request("POST /watching", body=b"x"))
        with trio.move_on_after(5):
            await client.send(request() * 10_000)
        assert transport_of(client).unsent_bytes == 10_000


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("POST /echo", {"Transfer-Encoding": "chunked"}) + b"zz\r\n", 400),
        (request("POST /echo", {"Transfer-Encoding": "chunked"}) + b"65\r\n" + b"x" * 101 + b"\r\n", 413),
        (request("POST /echo", {"Content-Length": "101"}), 413),
        (request("POST /echo", {"Content-Length": "10"}) + b"half", 408),
    ],
)
async def test_a_request_that_turns_out_bad_is_refused_by_us(raw: bytes, status: int, autojump_clock: MockClock) -> None:
    async with open_front(web=App(), limits=FrontLimits(body_bytes_max=100)) as world:
        client = world.connect()
        got = await client.ask(raw)
        assert (got.status, got.headers["connection"]) == (status, "close")
        assert await client.end() == b""
        assert world.front.unexpected == 0


async def test_a_pages_refusal_carries_the_requests_id_and_to_head_no_body(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        for method in ("GET", "HEAD"):
            client = world.connect()
            bad = request(f"{method} /echo", {"Transfer-Encoding": "chunked", "X-Request-ID": "mine", "Origin": "http://test"})
            await client.send(bad + b"zz\r\n")
            got = await client.answer(head_only=method == "HEAD")
            assert (got.status, got.headers["x-request-id"]) == (400, "mine")
            assert got.headers["access-control-allow-origin"] == "http://test"
            assert await client.end() == b""


async def test_what_is_no_request_is_not_answered_under_an_earlier_ones_id(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        await client.send(request("GET /", {"X-Request-ID": "mine"}) + b"GARBAGE\r\n\r\n")
        assert (await client.answer()).headers["x-a"] == "1"
        assert (await client.answer()).headers["x-request-id"] != "mine"


async def test_a_body_that_turns_out_bad_behind_the_first_words_tears_the_answer(autojump_clock: MockClock) -> None:
    async with open_front(web=App()) as world:
        client = world.connect()
        await client.send(request("POST /duplex", {"Transfer-Encoding": "chunked"}) + b"3\r\none\r\n")
        await wait_all_tasks_blocked()
        await client.send(b"zz\r\n")
        with capture_logs(), pytest.raises((Ended, OSError)):
            await client.answer()
        assert world.front.unexpected == 0  # the application stumbles over the early end, which is not its fault
