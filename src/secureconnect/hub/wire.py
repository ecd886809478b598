"""What nodes say to each other, as bytes: one version byte, who says it, then a list of bodies in MessagePack.

    version (1 byte) | length of the node's name (1 byte) | name | msgpack [body, …]

A node skips its own messages by their first bytes. Messages of a version that it does not know it counts and ignores, so that
nodes of two releases can share a bus. Bodies are arrays with a word in front; fields are only ever added at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from .digest import Digest

VERSION = 1
NODES_TOPIC = "nodes"
"""Where digests and signals go: every node listens."""
CHANNEL_TOPIC = "channel/"


class Entries(msgspec.Struct, frozen=True, array_like=True, tag="entries"):
    """Numbered entries of the topic's channel: (sequence, event, payload)."""

    items: tuple[tuple[int, str, bytes], ...]


class Event(msgspec.Struct, frozen=True, array_like=True, tag="event"):
    """An event for the topic's channel, which keeps its own history: each node gives it a position of its own."""

    event: str
    data: bytes


class Ephemeral(msgspec.Struct, frozen=True, array_like=True, tag="ephemeral"):
    """An ephemeral event of the topic's channel."""

    event: str
    payload: bytes
    coalesce: str | None = None


class Signalled(msgspec.Struct, frozen=True, array_like=True, tag="signal"):
    """A signal at once; it rides in the digests too."""

    epoch: int
    number: int
    name: str
    data: bytes


Body: TypeAlias = Entries | Event | Ephemeral | Signalled | Digest

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Body])


class UnknownMessage(Exception):
    """Another version, or no message of ours."""


def prefix(node: str) -> bytes:
    """How the messages of this node begin."""
    name = node.encode()
    assert len(name) < 256, "a node's name is short"
    return bytes((VERSION, len(name))) + name


def encode(prefix: bytes, bodies: Sequence[Body]) -> bytes:
    return prefix + _encoder.encode(bodies)


def decode(data: bytes) -> tuple[str, list[Body]]:
    """Who says what. Raises: UnknownMessage."""
    if len(data) < 2 or data[0] != VERSION:
        raise UnknownMessage(f"version {data[0] if data else None}")
    end = 2 + data[1]
    try:
        return data[2:end].decode(), _decoder.decode(data[end:])
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UnknownMessage(str(error)) from error
