"""The bounded line of bytes in front of one socket. Pure: it says what to write next and is told how much was taken.

Everything that goes to the socket stands in one line: events, answers, control frames, in the order of calls. What the kernel
takes only in part stays first. The rungs of the ladder that are decided here: an ephemeral frame that waits is replaced by a
newer one of its kind; when the line is half full ephemeral frames are refused; when it is full everything is, and the hub
replays later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .frame import Frame

JOINED_BYTES = 64 << 10
"""What is joined into one write: past this a copy costs more than the calls it saves."""


class _Chunk:
    """Bytes that leave together. `frames` of its `messages` are event frames, `apart` of its bytes are counted apart."""

    __slots__ = ("apart", "data", "frames", "key", "messages")

    def __init__(
        self, data: bytes | memoryview, *, frames: int, messages: int = 1, key: str | None = None, apart: int = 0
    ) -> None:
        self.apart = apart
        self.data = data
        self.frames = frames
        self.messages = messages
        self.key = key


class Outbox:
    """`messages` and `bytes` wait; both bounds hold for `offer`, and for `push` as far as its caller asks `fits`.

    `apart_bytes` of them do not count in `bytes_max`: what the owner says itself is bounded by the owner, and one large answer
    of its own must not stop the events behind it.
    `replaced` counts the event frames whose place a newer one took: the owner reports them by `Peer.dropped`.
    """

    __slots__ = ("_chunks", "_keys", "apart_bytes", "bytes", "bytes_max", "messages", "messages_max", "replaced")

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.messages = 0
        self.bytes = 0
        self.apart_bytes = 0
        self.replaced = 0
        self._chunks: deque[_Chunk] = deque()
        self._keys: dict[str, _Chunk] | None = None  # ephemeral chunks that may still be replaced

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._chunks)

    def fits(self, messages: int, size: int, *, droppable: bool = False) -> bool:
        """Whether there is room. A line of nothing but bytes apart takes anything, or a large message could never leave."""
        counted = self.bytes - self.apart_bytes
        if not counted:
            return True
        share = 2 if droppable else 1
        return (self.messages + messages) * share <= self.messages_max and (counted + size) * share <= self.bytes_max

    def fits_frames(self, frames: Sequence[Frame]) -> bool:
        """Whether `offer(frames, droppable=False)` would succeed."""
        return self.fits(len(frames), sum(len(frame.ws) for frame in frames))

    def push(self, data: bytes, *, apart: bool = False) -> None:
        """Append bytes that are no event of the hub. The caller minds the bound, that of bytes `apart` too."""
        self._append(_Chunk(data, frames=0, apart=len(data) if apart else 0))

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        """As `Sink.offer`: all of it or nothing."""
        if droppable:
            return self._offer_droppable(frames)
        if not self.fits_frames(frames):
            return False
        for frame in frames:
            self._append(_Chunk(frame.ws, frames=1))
        return True

    def keep(self, rest: bytes | memoryview, *, frames: int) -> None:
        """What the socket did not take of a direct write: first in line, whatever the bounds say; apart if it is no event."""
        chunk = _Chunk(rest, frames=frames, messages=max(1, frames), apart=0 if frames else len(rest))
        self._chunks.appendleft(chunk)
        self._count(chunk, 1)

    def head(self) -> bytes | memoryview:
        """What to write next, small chunks joined; empty when nothing waits. The same until `wrote` is told of it."""
        if not self._chunks:
            return b""
        first = self._chunks[0]
        if len(first.data) < JOINED_BYTES and len(self._chunks) > 1:
            first = self._join()
        self._fix(first)
        return first.data

    def wrote(self, size: int) -> int:
        """The socket took `size` bytes of `head`. The answer: event frames that have left entirely, for `Peer.delivered`."""
        first = self._chunks[0]
        self.bytes -= size
        apart = min(first.apart, size)
        first.apart -= apart
        self.apart_bytes -= apart
        if size < len(first.data):
            first.data = memoryview(first.data)[size:]
            return 0
        del self._chunks[0]
        self.messages -= first.messages
        return first.frames

    def clear(self) -> None:
        """The connection is gone."""
        self._chunks.clear()
        self._keys = None
        self.messages = self.bytes = self.apart_bytes = 0

    def _offer_droppable(self, frames: Sequence[Frame]) -> bool:
        if not self.fits(len(frames), sum(len(frame.ws) for frame in frames), droppable=True):
            return False
        for frame in frames:
            key = None if frame.coalesce is None else f"{frame.channel}\n{frame.coalesce}"
            if key is None or not self._replace(key, frame.ws):
                chunk = _Chunk(frame.ws, frames=1, key=key)
                self._append(chunk)
                if key is not None:
                    self._keys = self._keys or {}
                    self._keys[key] = chunk
        return True

    def _replace(self, key: str, data: bytes) -> bool:
        """A newer one takes the place of one that waits."""
        chunk = self._keys.get(key) if self._keys is not None else None
        if chunk is None:
            return False
        self.bytes += len(data) - len(chunk.data)
        chunk.data = data
        self.replaced += 1
        return True

    def _append(self, chunk: _Chunk) -> None:
        self._chunks.append(chunk)
        self._count(chunk, 1)

    def _count(self, chunk: _Chunk, sign: int) -> None:
        self.messages += sign * chunk.messages
        self.bytes += sign * len(chunk.data)
        self.apart_bytes += sign * chunk.apart

    def _join(self) -> _Chunk:
        """Make one chunk of the first ones."""
        parts: list[_Chunk] = []
        size = 0
        while self._chunks and size + len(self._chunks[0].data) <= JOINED_BYTES:
            chunk = self._chunks.popleft()
            self._fix(chunk)
            size += len(chunk.data)
            parts.append(chunk)
        joined = _Chunk(
            b"".join([part.data for part in parts]),
            frames=sum(part.frames for part in parts),
            messages=sum(part.messages for part in parts),
            apart=sum(part.apart for part in parts),
        )
        self._chunks.appendleft(joined)
        return joined

    def _fix(self, chunk: _Chunk) -> None:
        """It is about to be written: nothing takes its place any more."""
        if chunk.key is not None and self._keys is not None:
            self._keys.pop(chunk.key, None)
            chunk.key = None
