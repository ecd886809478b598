"""What nodes say to each other, as bytes."""

from __future__ import annotations

import pytest

from secureconnect.hub.digest import Digest
from secureconnect.hub.wire import Body, Entries, Ephemeral, Event, Signalled, UnknownMessage, decode, encode, prefix

BODIES: list[Body] = [
    Entries(((1, "said", b"{}"), (2, "said", b"\xff"))),
    Event("call.ringing", b"{}"),
    Ephemeral("typing", b"{}"),
    Ephemeral("typing", b"{}", "ann"),
    Signalled(7, 3, "session.ended", b"x"),
    Digest("ä", 7, 9, (("room:1", 4),), ((3, "session.ended", b"x"),), True),
]


def test_every_body_comes_back_as_it_was() -> None:
    assert decode(encode(prefix("ä"), BODIES)) == ("ä", BODIES)


def test_messages_of_a_node_begin_with_its_prefix_and_no_other_node_s() -> None:
    assert encode(prefix("a"), BODIES).startswith(prefix("a"))
    assert not encode(prefix("ab"), BODIES).startswith(prefix("a"))


def test_a_field_added_by_a_newer_release_is_ignored() -> None:
    import msgspec

    data = prefix("a") + msgspec.msgpack.encode([["event", "x", b"1", "new"]])
    assert decode(data) == ("a", [Event("x", b"1")])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02\x01a\x90",
        b"\x01\x01a",
        b"\x01\x01a\xc1",
        b"\x01\x01\xff\x90",
        b"\x01\x09a\x90",
        prefix("a") + b"\x91\x92\xa7unknown\x01",
        prefix("a") + b"\x91\x92\xa7entries\x01",
    ],
)
def test_what_is_not_ours_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownMessage):
        decode(data)
