"""One event, encoded once for everybody: as bytes, as text, as a ready WebSocket frame."""

from __future__ import annotations

import msgspec

_TEXT = 0x81  # FIN and opcode 1, RFC 6455 §5.2
encode = msgspec.json.encode


class Frame:
    """An event on its way to many connections. Never changed after it was handed to a hub.

    `payload`: the JSON envelope in UTF-8. `channel`, `event`: what the envelope says, for routing and for sinks that choose.
    `position`: the sequence of a log entry, `epoch-offset` in a channel with history, None for what is ephemeral.
    `coalesce`: of ephemeral frames of one channel that wait with the same word, only the newest is worth sending.
    """

    __slots__ = ("_text", "_ws", "channel", "coalesce", "event", "payload", "position")

    def __init__(
        self,
        payload: bytes,
        channel: str,
        event: str,
        position: int | str | None = None,
        *,
        coalesce: str | None = None,
    ) -> None:
        self.payload = payload
        self.channel = channel
        self.event = event
        self.position = position
        self.coalesce = coalesce
        self._text: str | None = None
        self._ws: bytes | None = None

    def __repr__(self) -> str:
        return f"<Frame {self.event} on {self.channel} at {self.position}>"

    @property
    def text(self) -> str:
        """The payload as text, decoded once."""
        if self._text is None:
            self._text = self.payload.decode()
        return self._text

    @property
    def ws(self) -> bytes:
        """The payload as one unmasked server text frame, made once."""
        if self._ws is None:
            self._ws = _header(len(self.payload)) + self.payload
        return self._ws


class Item(msgspec.Struct, frozen=True):
    """A numbered event of a channel. In a queue, `sequence` 0 marks an ephemeral one: it has no place in the order of numbers."""

    sequence: int
    frame: Frame


EPHEMERAL = 0
GAP = "gap"
"""The event that says what will not come; our own word, so publishers have no such event."""


def _header(size: int) -> bytes:
    if size < 126:
        return bytes((_TEXT, size))
    if size < 65_536:
        return bytes((_TEXT, 126)) + size.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + size.to_bytes(8, "big")


def history_frame(channel: str, event: str, *, position: str, data: bytes) -> Frame:
    """The envelope of an event in a channel that keeps its own history. `data` is JSON."""
    payload = b'{"event":%b,"channel":%b,"position":%b,"data":%b}' % (encode(event), encode(channel), encode(position), data)
    return Frame(payload, channel, event, position)


def gap_frame(channel: str, *, after: int | str, cause: str) -> Frame:
    """Tells a client that events up to `after` will not come by themselves (they may be read), and why; they go on behind it."""
    data = encode({"channel": channel, "after": after, "cause": cause})
    return Frame(b'{"event":"gap","channel":%b,"data":%b}' % (encode(channel), data), channel, GAP, after)
