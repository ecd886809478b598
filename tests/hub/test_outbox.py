"""The line in front of a socket: order, bounds, partial writes, and what an ephemeral frame has to put up with."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

import secureconnect.hub.outbox as outbox_module
from secureconnect.hub import Frame, Outbox


def frame(payload: bytes, word: str | None = None, channel: str = "room:1") -> Frame:
    return Frame(payload, channel, "typing" if word else "said", coalesce=word)


def outbox_of(messages_max: int = 10, bytes_max: int = 1000) -> Outbox:
    return Outbox(messages_max=messages_max, bytes_max=bytes_max)


def drain(outbox: Outbox, step: int = 10**9) -> tuple[bytes, int]:
    """All that leaves, `step` bytes at a time, and the event frames reported."""
    stream, frames = bytearray(), 0
    while outbox:
        part = bytes(outbox.head())[:step]
        stream += part
        frames += outbox.wrote(len(part))
    return bytes(stream), frames


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_everything_leaves_in_the_order_of_calls_whatever_the_kernel_takes(step: int) -> None:
    outbox = outbox_of()
    first, second = frame(b"one"), frame(b"two")
    outbox.push(b"pong")
    assert outbox.offer([first, second], droppable=False)
    outbox.push(b"close")
    outbox.keep(memoryview(b"rest"), frames=3)
    assert (outbox.messages, outbox.bytes) == (7, 4 + 4 + 5 + 5 + 5)
    assert drain(outbox, step) == (b"rest" + b"pong" + first.ws + second.ws + b"close", 5)
    assert (outbox.messages, outbox.bytes) == (0, 0)


def test_a_frame_counts_as_delivered_when_its_last_byte_has_left() -> None:
    outbox = outbox_of()
    outbox.offer([frame(b"one")], droppable=False)
    size = len(outbox.head())
    assert outbox.wrote(size - 1) == 0
    assert outbox.wrote(1) == 1


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(3, 1000), (100, 20)], ids=["messages", "bytes"])
def test_an_offer_is_taken_whole_or_not_at_all(messages_max: int, bytes_max: int) -> None:
    outbox = outbox_of(messages_max, bytes_max)
    assert outbox.offer([frame(b"123"), frame(b"456")], droppable=False)
    assert not outbox.fits_frames([frame(b"12345"), frame(b"12345")])
    assert not outbox.offer([frame(b"12345"), frame(b"12345")], droppable=False)
    assert outbox.messages == 2
    assert outbox.offer([frame(b"x")], droppable=False)


def test_an_empty_line_takes_anything() -> None:
    """Or one event larger than the bound could never leave."""
    outbox = outbox_of(bytes_max=10)
    assert outbox.fits_frames([frame(b"x" * 99)])
    assert outbox.offer([frame(b"x" * 99)], droppable=False)
    assert not outbox.fits(1, 1)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bytes_apart_leave_in_their_turn_and_take_no_room_from_events(step: int) -> None:
    outbox = outbox_of(bytes_max=20)
    outbox.push(b"x" * 100, apart=True)
    outbox.push(b"y" * 5, apart=True)
    assert outbox.offer([frame(b"1" * 10)], droppable=False)
    assert not outbox.offer([frame(b"2" * 10)], droppable=False)
    assert (outbox.bytes, outbox.apart_bytes) == (105 + len(frame(b"1" * 10).ws), 105)
    assert drain(outbox, step) == (b"x" * 100 + b"y" * 5 + frame(b"1" * 10).ws, 1)
    assert (outbox.bytes, outbox.apart_bytes) == (0, 0)


def test_what_is_left_of_an_event_counts_and_what_is_left_of_anything_else_does_not() -> None:
    outbox = outbox_of(bytes_max=20)
    outbox.keep(b"x" * 100, frames=0)
    assert (outbox.apart_bytes, outbox.fits(1, 10)) == (100, True)
    outbox.keep(b"x" * 100, frames=1)
    assert (outbox.apart_bytes, outbox.fits(1, 10)) == (100, False)


def test_ephemeral_frames_may_fill_half() -> None:
    outbox = outbox_of(messages_max=4)
    assert outbox.offer([frame(b"a")], droppable=True)
    assert outbox.offer([frame(b"b")], droppable=True)
    assert not outbox.offer([frame(b"c")], droppable=True)
    assert outbox.offer([frame(b"1"), frame(b"2")], droppable=False)
    assert not outbox.offer([frame(b"3")], droppable=False)


def test_a_newer_ephemeral_frame_takes_the_place_of_one_that_waits() -> None:
    outbox = outbox_of()
    outbox.push(b"before")
    for payload, word, channel in ((b"1", "ann", "x"), (b"2", "bob", "x"), (b"33", "ann", "x"), (b"4", "ann", "y")):
        outbox.offer([frame(payload, word, channel)], droppable=True)
    assert outbox.replaced == 1
    stream, frames = drain(outbox)
    assert stream == b"before" + b"".join(frame(payload).ws for payload in (b"33", b"2", b"4"))
    assert frames == 3


def test_what_has_begun_to_leave_is_not_replaced() -> None:
    outbox = outbox_of()
    outbox.offer([frame(b"1", "ann")], droppable=True)
    outbox.wrote(len(outbox.head()[:1]))
    outbox.offer([frame(b"2", "ann")], droppable=True)
    assert outbox.replaced == 0
    assert drain(outbox)[0] == frame(b"1").ws[1:] + frame(b"2").ws


def test_small_chunks_are_joined_and_large_ones_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "JOINED_BYTES", 10)
    outbox = outbox_of()
    large = b"x" * 10
    for data in (b"1234", b"5678", b"9", large):
        outbox.push(data)
    assert outbox.head() == b"123456789"
    assert outbox.head() == b"123456789", "the same until it was written"
    outbox.wrote(9)
    assert outbox.head() is large


def test_the_end_of_the_connection_empties_it() -> None:
    outbox = outbox_of()
    outbox.offer([frame(b"1", "ann")], droppable=True)
    outbox.clear()
    assert not outbox
    assert outbox.head() == b""
    assert (outbox.messages, outbox.bytes) == (0, 0)
    outbox.offer([frame(b"2", "ann")], droppable=True)
    assert outbox.replaced == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 30)),
        st.tuples(st.just("offer"), st.integers(1, 30)),
        st.tuples(st.just("write"), st.integers(0, 50)),
    )
)


@given(STEPS)
def test_against_a_line_of_bytes(steps: list[tuple[str, int]]) -> None:
    outbox, model = outbox_of(messages_max=6, bytes_max=100), deque[int]()
    offered = delivered = 0
    for count, (what, n) in enumerate(steps):
        data = bytes([count % 256]) * n
        if what == "push" and outbox.fits(1, n):
            outbox.push(data)
            model.extend(data)
        elif what == "offer" and outbox.offer([frame(data)], droppable=False):
            model.extend(frame(data).ws)
            offered += 1
        elif what == "write" and outbox:
            part = bytes(outbox.head())[:n]
            assert part == bytes(model.popleft() for _ in part)
            delivered += outbox.wrote(len(part))
        assert outbox.bytes == len(model)
        assert bool(outbox) is bool(model)
        assert outbox.messages <= 6
    rest, left = drain(outbox)
    assert rest == bytes(model)
    assert delivered + left == offered
