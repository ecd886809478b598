"""What is an acceptable request, byte by byte: the rules that a smuggled request would break."""

from __future__ import annotations

import pytest

from secureconnect.errors import SecureConnectError, TooLarge
from secureconnect.server.front_body import CHUNKS_MAX, STEPS_PER_TURN, ChunkedBody, SizedBody, body_of
from secureconnect.server.front_parser import HEAD_BYTES_MAX, HEADERS_MAX, HeadTooLarge, Inbox, Malformed, parse_head
from secureconnect.server.message import Head

HOST = b"Host: x\r\n"


def head_of(*lines: bytes, line: bytes = b"POST /p HTTP/1.1") -> Head:
    return parse_head(line + b"\r\n" + b"".join(each + b"\r\n" for each in (b"Host: x", *lines)) + b"\r\n")


def test_a_plain_head_is_read_whole() -> None:
    head = head_of(b"Content-Length: 12", b"X-A:  b c \t", b"Accept: 1", b"accept: 2", b"Cookie: a", b"COOKIE: b", b"E:")
    assert (head.method, head.path, head.query, head.version, head.length) == ("POST", b"/p", b"", "1.1", 12)
    assert head.headers == {
        b"host": b"x", b"content-length": b"12", b"x-a": b"b c", b"accept": b"1, 2", b"cookie": b"a; b", b"e": b"",
    }  # fmt: skip


REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", "host"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "repeated_header"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", "repeated_header"),
    (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", "host"),
    (b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", "host"),
    (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", "host"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n", "header"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A\t: b\r\n\r\n", "header"),
    (b"GET / HTTP/1.1\r\n" + HOST + b": b\r\n\r\n", "header"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", "header"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A\xe9: b\r\n\r\n", "header"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", "folded_line"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n\tc\r\n\r\n", "folded_line"),
    (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", "folded_line"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\nC: d\r\n\r\n", "bare_line_end"),
    (b"GET / HTTP/1.1\n" + HOST + b"\r\n", "bare_line_end"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rC: d\r\n\r\n", "bare_line_end"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\r\n\r\n", "bare_line_end"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\n\r\n\r\n", "bare_line_end"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\0c\r\n\r\n", "control_character"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x01c\r\n\r\n", "control_character"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\x7fc\r\n\r\n", "control_character"),
    (b"GET /\x0b HTTP/1.1\r\n" + HOST + b"\r\n", "control_character"),
    (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", "request_line"),
    (b" GET / HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET /\r\n" + HOST + b"\r\n", "request_line"),
    (b"GET / http/1.1\r\n" + HOST + b"\r\n", "request_line"),
    (b"DESCRIBE / RTSP/1.0\r\n" + HOST + b"\r\n", "request_line"),
    (b"FROB / HTTP/1.1\r\n" + HOST + b"\r\n", "method"),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", "http_version"),
    (b"PRI * HTTP/2.0\r\n\r\n", "http_version"),
    (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", "http_version"),
    (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", "http_version"),
    (b"GET /#f HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (b"GET p HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (b"GET ftp://x/ HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (b"GET http://u@x/ HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (b"GET http://evil/ HTTP/1.1\r\n" + HOST + b"\r\n", "host"),
    (b"GET http://x:81/ HTTP/1.1\r\n" + HOST + b"\r\n", "host"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "length_and_chunked"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "length_and_chunked"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5 6\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999999\r\n\r\n", "content_length"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", "transfer_encoding"),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 200-maybe\r\n\r\n", "expect"),
    (b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", "repeated_header"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_what_two_readers_could_disagree_about_is_refused_by_name(raw: bytes, reason: str) -> None:
    inbox = Inbox()
    inbox.feed(raw)
    with pytest.raises(Malformed) as caught:
        inbox.head()
    assert caught.value.reason == reason
    assert caught.value.status == 400


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_a_refusal_does_not_depend_on_how_the_bytes_arrive(raw: bytes, reason: str) -> None:
    inbox = Inbox()

    def drip() -> None:
        for byte in raw:
            inbox.feed(bytes([byte]))
            assert inbox.head() is None

    with pytest.raises(Malformed):
        drip()


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a/b?c=d?e&f", b"/a/b", b"c=d?e&f"),
        (b"http://x", b"/", b""),
        (b"http://x?q", b"/", b"q"),
        (b"HTTP://X:80/p?q", b"/p", b"q"),
    ],
)
def test_origin_and_absolute_form_say_the_same(target: bytes, path: bytes, query: bytes) -> None:
    head = head_of(line=b"GET " + target + b" HTTP/1.1")
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"keep-alive, Close", False),
        (b"1.1", b"upgrade", True),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_whether_the_connection_goes_on_is_read_from_version_and_header(
    version: bytes, connection: bytes | None, keeps: bool
) -> None:
    lines = [] if connection is None else [b"Connection: " + connection]
    assert head_of(*lines, line=b"GET / HTTP/" + version).keep_alive is keeps


def test_http_1_0_needs_no_host_and_has_no_expectations() -> None:
    head = parse_head(b"GET / HTTP/1.0\r\nExpect: whatever\r\n\r\n")
    assert (head.version, head.expects_continue) == ("1.0", False)


def test_a_head_may_arrive_byte_by_byte_and_one_empty_line_before_it_is_tolerated() -> None:
    inbox = Inbox()
    heads = []
    for byte in b"\r\nGET /a HTTP/1.1\r\n" + HOST + b"\r\n\r\nGET /b HTTP/1.1\r\n" + HOST + b"\r\n":
        inbox.feed(bytes([byte]))
        head = inbox.head()
        if head is not None:
            heads.append(head.path)
    assert heads == [b"/a", b"/b"]
    assert len(inbox) == 0


def test_a_head_may_arrive_in_any_three_pieces() -> None:
    """A read may end just behind a line's LF, and the next one between the CR and the LF of a later line."""
    raw = b"GET /a HTTP/1.1\r\n" + HOST + b"A: b\r\nC: d\r\n\r\n"
    for first in range(1, len(raw)):
        for second in range(first + 1, len(raw)):
            inbox = Inbox()
            inbox.feed(raw[:first])
            assert inbox.head() is None
            inbox.feed(raw[first:second])
            assert inbox.head() is None
            inbox.feed(raw[second:])
            assert inbox.head() == parse_head(raw)


def test_a_lone_empty_line_begins_no_request() -> None:
    inbox = Inbox()
    inbox.feed(b"\r\n")
    assert not inbox.begun
    inbox.feed(b"G")
    assert inbox.begun


@pytest.mark.parametrize("size", [HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1])
@pytest.mark.parametrize("whole", [True, False])
def test_a_head_over_its_limit_is_refused_at_the_limit(size: int, whole: bool) -> None:
    frame = b"GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n"
    raw = frame[:-4] + b"a" * (size - len(frame)) + (b"\r\n\r\n" if whole else b"aaaa")
    assert len(raw) == size
    inbox = Inbox()
    inbox.feed(raw)
    if size > HEAD_BYTES_MAX:
        with pytest.raises(HeadTooLarge):
            inbox.head()
    else:
        assert (inbox.head() is not None) is whole


@pytest.mark.parametrize("count", [HEADERS_MAX, HEADERS_MAX + 1])
def test_there_are_at_most_a_hundred_headers(count: int) -> None:
    lines = [b"a%d: b" % i for i in range(count - 1)]  # and Host
    if count <= HEADERS_MAX:
        assert len(head_of(*lines).headers) == count
    else:
        with pytest.raises(HeadTooLarge) as caught:
            head_of(*lines)
        assert caught.value.status == 431


def pull_all(body: ChunkedBody | SizedBody, raw: bytes, step: int) -> tuple[bytes, Inbox]:
    inbox, got = Inbox(), b""
    for at in range(0, len(raw), step):
        inbox.feed(raw[at : at + step])
        while (piece := body.pull(inbox)) or body.is_paused:
            got += piece
    return got, inbox


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_a_chunked_body_is_the_same_however_it_arrives(step: int) -> None:
    body = ChunkedBody(1000)
    raw = b'5\r\nhello\r\n0A;ext=1;b="c"\r\n0123456789\r\n1\r\n\r\r\n0\r\nChecksum: x\r\n\r\nGET'
    got, inbox = pull_all(body, raw, step)
    assert (got, body.done, inbox.take(10)) == (b"hello0123456789\r", True, b"GET")


def test_many_small_chunks_are_read_in_turns_and_whole() -> None:
    """A read of 64 KiB in chunks of one byte took 19 ms at once."""
    count = 10_000
    body, inbox, got, turns = ChunkedBody(1 << 20), Inbox(), b"", 0
    inbox.feed(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    while not body.done:
        before = len(inbox)
        got += body.pull(inbox)
        turns += 1
        assert before - len(inbox) <= 6 * STEPS_PER_TURN / 3 + 6
        assert body.done or body.is_paused
    assert (got, turns) == (b"x" * count, -(-(3 * count + 2) // STEPS_PER_TURN))


def test_trailers_are_read_in_turns_too() -> None:
    body, inbox, turns = ChunkedBody(1 << 20), Inbox(), 0
    inbox.feed(b"0\r\n" + b"a:\r\n" * 2000 + b"\r\nGET")
    while not body.done:
        assert body.pull(inbox) == b""
        turns += 1
    assert (turns, inbox.take(10)) == (-(-2002 // STEPS_PER_TURN), b"GET")


@pytest.mark.parametrize("step", [1, 4, 100])
def test_a_sized_body_takes_its_own_bytes_only(step: int) -> None:
    body = SizedBody(5)
    got, inbox = pull_all(body, b"helloGET /", step)
    assert (got, body.done, inbox.take(10)) == (b"hello", True, b"GET /")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"5\nhello\r\n", "bare_line_end"),
        (b"5\r\nhelloX0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello\n0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello!\r\n", "chunk_end"),
        (b"g\r\n", "chunk_size"),
        (b"\r\n", "chunk_size"),
        (b" 5\r\n", "chunk_size"),
        (b"5 \r\n", "chunk_size"),
        (b"+5\r\n", "chunk_size"),
        (b"-1\r\n", "chunk_size"),
        (b"0x5\r\n", "chunk_size"),
        (b"5_0\r\n", "chunk_size"),
        (b"5;a\x00\r\n", "chunk_size"),
        (b"5;a\rb\r\n", "bare_line_end"),
        (b"000000005\r\n", "chunk_size"),
        (b"5;" + b"a" * 300, "line_too_long"),
        (b"0\r\nno colon\r\n\r\n", "trailer"),
        (b"0\r\n folded: x\r\n\r\n", "trailer"),
        (b"0\r\n: x\r\n\r\n", "trailer"),
        (b"0\r\na: \x01\r\n\r\n", "trailer"),
        (b"0\r\na : x\r\n\r\n", "trailer"),
        (b"0\r\na b: x\r\n\r\n", "trailer"),
        (b"0\r\n\xe9: x\r\n\r\n", "trailer"),
        (b"0\r\nContent-Length: 5\r\n\r\n", "trailer_name"),
        (b"0\r\nok: 1\r\ntransfer-encoding: chunked\r\n\r\n", "trailer_name"),
        (b"0\r\nHOST: evil\r\n\r\n", "trailer_name"),
        (b"0\r\nAuthorization: Bearer x\r\n\r\n", "trailer_name"),
        (b"0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n", "trailer_name"),
        (b"0\r\n" + b"a: b\r\n" * 2000, "chunk_extras"),
        (b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 300, "chunk_extras"),
        (b"1\r\nx\r\n" * (CHUNKS_MAX + 1), "chunks"),
    ],
)
def test_odd_chunks_are_refused_by_name(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        pull_all(ChunkedBody(1 << 20), raw, len(raw))
    assert caught.value.reason == reason


@pytest.mark.parametrize("lines", [[b"Content-Length: 1001"], [b"Transfer-Encoding: chunked"]])
def test_a_body_over_its_limit_is_refused_before_it_is_read(lines: list[bytes]) -> None:
    def read() -> None:
        pull_all(body_of(head_of(*lines), 1000), b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 100)  # type: ignore[arg-type]  # both kinds

    with pytest.raises(TooLarge) as caught:
        read()
    assert caught.value.status == 413
    assert isinstance(caught.value, SecureConnectError)
    assert caught.value.details["bytes_max"] == 1000
