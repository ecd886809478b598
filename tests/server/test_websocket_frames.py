"""The frame reader against RFC 6455: what passes, what is refused with which code, in any slicing of the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as PeerFrame
from websockets.frames import Opcode

from secureconnect.server.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FRAGMENTS_MAX,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameError,
    FrameReader,
    close_code,
    close_frame,
    server_frame,
)

LIMIT = 1000


def masked(payload: bytes, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0) -> bytes:
    """A client's frame, also such as no good client makes."""
    mask = b"\x11\xf0\x3c\xa5"
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes((fin << 7 | reserved | opcode,)) + length + mask + body


def read(*chunks: bytes, limit: int = LIMIT) -> tuple[list[Frame], tuple[int, str] | None]:
    """What a reader makes of `chunks`: the frames, and the violation that ended it."""
    reader, frames = FrameReader(limit), list[Frame]()
    for chunk in chunks:
        try:
            frames.extend(reader.feed(chunk))
        except FrameError as error:
            return frames, (error.code, error.reason)
    return frames, None


def in_pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


GOOD: dict[str, tuple[bytes, list[Frame]]] = {
    "a text": (masked(b"hello"), [(TEXT, b"hello")]),
    "an empty text": (masked(b""), [(TEXT, b"")]),
    "text beyond ascii": (masked("κόσμε".encode()), [(TEXT, "κόσμε".encode())]),
    "a 16 bit length": (masked(b"x" * 500), [(TEXT, b"x" * 500)]),
    "exactly the limit": (masked(b"x" * LIMIT), [(TEXT, b"x" * LIMIT)]),
    "binary": (masked(b"\xff\x00", BINARY), [(BINARY, b"\xff\x00")]),
    "several in one read": (masked(b"a") + masked(b"b") + masked(b"c"), [(TEXT, b"a"), (TEXT, b"b"), (TEXT, b"c")]),
    "fragments": (
        masked(b"a", fin=False) + masked(b"b", CONTINUATION, fin=False) + masked(b"c", CONTINUATION),
        [(TEXT, b"abc")],
    ),
    "binary fragments": (masked(b"\xff", BINARY, fin=False) + masked(b"\xfe", CONTINUATION), [(BINARY, b"\xff\xfe")]),
    "control frames between fragments": (
        masked(b"a", fin=False) + masked(b"p", PING) + masked(b"q", PONG) + masked(b"b", CONTINUATION),
        [(PING, b"p"), (PONG, b"q"), (TEXT, b"ab")],
    ),
    "a character cut by fragments": (masked(b"\xce", fin=False) + masked(b"\xba", CONTINUATION), [(TEXT, "κ".encode())]),
    "empty fragments": (masked(b"", fin=False) + masked(b"", CONTINUATION), [(TEXT, b"")]),
    "a close": (masked(b"\x03\xe8bye", CLOSE), [(CLOSE, b"\x03\xe8bye")]),
    "a close without a code": (masked(b"", CLOSE), [(CLOSE, b"")]),
    "a close inside a message": (masked(b"a", fin=False) + masked(b"", CLOSE), [(CLOSE, b"")]),
    "the longest control frame": (masked(b"x" * 125, PING), [(PING, b"x" * 125)]),
}

BAD: dict[str, tuple[bytes, tuple[int, str]]] = {
    "an unmasked frame": (b"\x81\x05hello", (1002, "unmasked")),
    "a reserved bit": (masked(b"hello", reserved=0x40), (1002, "reserved_bit")),
    "a reserved opcode": (b"\x83\x80abcd", (1002, "reserved_opcode")),
    "a reserved control opcode": (b"\x8b\x80abcd", (1002, "reserved_opcode")),
    "a continuation of nothing": (masked(b"a", CONTINUATION), (1002, "bad_fragment")),
    "a text inside a message": (masked(b"a", fin=False) + masked(b"b"), (1002, "bad_fragment")),
    "a fragmented ping": (masked(b"a", PING, fin=False), (1002, "bad_control_frame")),
    "a ping of 126 bytes": (b"\x89\xfe\x00\x7e", (1002, "bad_control_frame")),
    "text that is not utf-8": (masked(b"\xff"), (1007, "bad_utf8")),
    "text that ends inside a character": (masked(b"\xce"), (1007, "bad_utf8")),
    "a surrogate": (masked(b"\xed\xa0\x80"), (1007, "bad_utf8")),
    "a bad fragment before the last": (masked(b"\xff", fin=False), (1007, "bad_utf8")),
    "fragments that end inside a character": (masked(b"a", fin=False) + masked(b"\xce", CONTINUATION), (1007, "bad_utf8")),
    "one byte over the limit": (masked(b"x" * (LIMIT + 1)), (1009, "too_big")),
    "fragments over the limit": (masked(b"x" * LIMIT, fin=False) + masked(b"x", CONTINUATION), (1009, "too_big")),
    "a length of 64 bits": (b"\x81\xff" + b"\xff" * 8, (1009, "too_big")),
    "a close of one byte": (masked(b"\x03", CLOSE), (1002, "bad_close")),
    "a close with a code nobody may send": (masked(b"\x03\xed", CLOSE), (1002, "bad_close")),
    "a close whose reason is not utf-8": (masked(b"\x03\xe8\xff", CLOSE), (1007, "bad_utf8")),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_the_protocol_allows_is_read(name: str) -> None:
    data, expected = GOOD[name]
    assert read(data) == (expected, None)


@pytest.mark.parametrize("name", BAD)
def test_what_it_forbids_is_refused_with_its_code(name: str) -> None:
    data, violation = BAD[name]
    assert read(data)[1] == violation


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_byte_by_byte_gives_the_same(name: str) -> None:
    data = (GOOD.get(name) or BAD[name])[0]
    assert read(*(data[i : i + 1] for i in range(len(data)))) == read(data)


@given(
    messages=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 4)), max_size=8),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_any_slicing_of_any_messages_gives_the_messages(messages: list[tuple[bytes, int]], cuts: list[int]) -> None:
    data = bytearray()
    for payload, fragments in messages:
        parts = in_pieces(payload, range(0, 50 * fragments, 50))
        for i, part in enumerate(parts):
            data += masked(part, CONTINUATION if i else BINARY, fin=i == len(parts) - 1)
    frames, violation = read(*in_pieces(bytes(data), cuts))
    assert violation is None
    assert frames == [(BINARY, payload) for payload, _ in messages]


def test_frames_of_another_implementation_are_read() -> None:
    frames = [PeerFrame(opcode, b"x" * size) for opcode in (Opcode.TEXT, Opcode.BINARY) for size in (0, 125, 126, 65_536)]
    data = b"".join(frame.serialize(mask=True) for frame in frames)
    assert read(data, limit=1 << 20) == ([(int(frame.opcode), bytes(frame.data)) for frame in frames], None)


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_any_bytes_give_frames_or_one_violation_whatever_the_slicing(data: bytes, cuts: list[int]) -> None:
    frames, violation = read(*in_pieces(data, cuts))
    assert (frames, violation) == read(data)
    assert violation is None or violation[0] in {1002, 1007, 1009}


def test_what_stands_before_a_violation_is_read_first() -> None:
    assert read(masked(b"good") + b"\x81\x05hello") == ([(TEXT, b"good")], (1002, "unmasked"))


def test_more_fragments_than_the_limit_are_refused_even_when_they_are_empty() -> None:
    endless = masked(b"", fin=False) + masked(b"", CONTINUATION, fin=False) * FRAGMENTS_MAX
    assert read(endless) == ([], (1009, "too_big"))


def test_a_reader_that_is_dropped_in_the_middle_keeps_the_rest() -> None:
    """The shell stops when too much waits, and goes on later."""
    reader = FrameReader(LIMIT)
    frames = reader.feed(masked(b"a") + masked(b"b") + masked(b"c")[:4])
    assert next(frames) == (TEXT, b"a")
    del frames
    assert list(reader.feed(b"")) == [(TEXT, b"b")]


def test_a_large_message_is_refused_before_it_is_held() -> None:
    reader = FrameReader(LIMIT)
    with pytest.raises(FrameError):
        list(reader.feed(b"\x81\xff" + (1 << 40).to_bytes(8, "big")))
    assert reader._message is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_server_frames_are_what_another_implementation_makes(size: int) -> None:
    payload = b"x" * size
    assert server_frame(TEXT, payload) == PeerFrame(Opcode.TEXT, payload).serialize(mask=False)


def test_a_close_frame_says_why_within_a_control_frame() -> None:
    assert close_frame(1008, "token_expired") == b"\x88\x0f\x03\xf0token_expired"
    assert len(close_frame(1008, "x" * 500)) == 2 + 125
    assert close_frame(1005) == b"\x88\x00"
    assert close_code(b"\x03\xe8bye") == 1000
    assert close_code(b"") == 1005
