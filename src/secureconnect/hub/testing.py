"""For the tests of whoever embeds a hub: a log in memory that can be slow, late or away, and sinks that remember.

source = MemorySource()
hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source})
hub.commit("room:1", source.append("room:1", b'{"text":"hello"}'))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import anyio
from anyio.lowlevel import checkpoint

from .errors import SourceAway, TableAway
from .frame import Frame, Item
from .peer import Peer
from .source import Page


class MemorySource:
    """A `Source`. Its faults are attributes, to be set at any time."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Item]] = {}
        self.firsts: dict[str, int] = {}
        """The lowest number kept, where retention has removed some."""
        self.calls: Counter[str] = Counter()
        self.is_away = False
        self.lag = 0
        """So many of the newest entries are not seen yet by readers."""
        self.delay_s = 0.0

    def append(self, channel: str, *payloads: bytes, event: str = "said") -> list[Item]:
        """Give the next numbers. The caller commits what is returned, or does not."""
        log = self.logs.setdefault(channel, [])
        items = [
            Item(number, Frame(payload, channel, event, number)) for number, payload in enumerate(payloads, start=len(log) + 1)
        ]
        log += items
        return items

    def retain_from(self, channel: str, first: int) -> None:
        """Retention: what lies below `first` is gone."""
        self.firsts[channel] = first

    async def read(self, channel: str, after: int, limit: int) -> Page:
        await self._answer("read")
        log, first = self.logs.get(channel, []), self.firsts.get(channel, 1)
        tail = max(0, len(log) - self.lag)
        begin = max(after, first - 1)
        return Page(tuple(log[begin : min(tail, begin + limit)]), tail, first)

    async def heads(self, channels: Sequence[str]) -> Mapping[str, int]:
        await self._answer("heads")
        return {channel: max(0, len(self.logs[channel]) - self.lag) for channel in channels if channel in self.logs}

    async def _answer(self, call: str) -> None:
        self.calls[call] += 1
        await checkpoint()
        if self.delay_s:
            await anyio.sleep(self.delay_s)
        if self.is_away:
            raise SourceAway("away, as told")


class MemoryTable:
    """A `DigestTable` for the hubs of one process."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, int], bytes] = {}
        self.reads = 0
        self.is_away = False

    async def write(self, node: str, epoch: int, number: int, data: bytes) -> None:
        await checkpoint()
        if self.is_away:
            raise TableAway("away, as told")
        self.rows[node, epoch, number] = data

    async def since(self, seen: Mapping[str, tuple[int, int]]) -> Sequence[bytes]:
        await checkpoint()
        self.reads += 1
        if self.is_away:
            raise TableAway("away, as told")
        return [self.rows[key] for key in sorted(self.rows) if key[1:] > seen.get(key[0], (-1, -1))]


class RecordingSink:
    """A `Sink` that remembers what it got. `room`: how many frames it still takes; None: any number."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.frames: list[Frame] = []
        self.reason: str | None = None
        self._changed = anyio.Event()

    @property
    def positions(self) -> list[int | str | None]:
        return [frame.position for frame in self.frames]

    def events(self, channel: str) -> list[str]:
        return [frame.event for frame in self.frames if frame.channel == channel]

    def numbers(self, channel: str) -> list[int]:
        """The numbered events of a channel with a log, as they came."""
        return [
            frame.position
            for frame in self.frames
            if frame.channel == channel and isinstance(frame.position, int) and frame.event != "gap"
        ]

    async def wait_frames(self, count: int) -> list[Frame]:
        """Until so many came. The caller sets the deadline."""
        while len(self.frames) < count:
            await self._changed.wait()
        return self.frames

    def make_room(self, frames: int) -> None:
        assert self.room is not None, "it takes everything"
        self.room += frames
        self._wake()

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        if self.room is not None:
            if len(frames) > self.room:
                return False
            self.room -= len(frames)
        self.frames += frames
        self._wake()
        return True

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        await checkpoint()
        while self.room is not None and self.room < len(frames):
            await self._changed.wait()

    def hang_up(self, reason: str) -> None:
        self.reason = reason
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class RecordingSocket(RecordingSink):
    """A `DirectSink` over a socket that takes `window` bytes until it is drained; None: everything.

    `written` is what the other side would read, `kept` what waits in front of the socket with the event frames that it ends.
    Set `error` to let the next writes fail.
    """

    def __init__(self, window: int | None = None, *, room: int | None = None) -> None:
        super().__init__(room)
        self.window = window
        self.error: OSError | None = None
        self.written = bytearray()
        self.writes = 0
        self.kept: list[tuple[bytes, int]] = []
        self.broken_by: OSError | None = None
        self.peer: Peer | None = None

    def attach(self, peer: Peer) -> None:
        self.peer = peer

    def send_now(self, data: bytes) -> int:
        self.writes += 1
        if self.error is not None:
            raise self.error
        taken = len(data) if self.window is None else min(self.window, len(data))
        if not taken:
            raise BlockingIOError
        if self.window is not None:
            self.window -= taken
        self.written += data[:taken]
        self._wake()
        return taken

    def keep(self, rest: memoryview | bytes, frames: int) -> None:
        assert not self.kept, "written to while something waits"
        self.kept.append((bytes(rest), frames))

    def broken(self, error: OSError) -> None:
        self.broken_by = error

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        if not super().offer(frames, droppable=droppable):
            return False
        self.push(b"".join(frame.ws for frame in frames), len(frames))
        return True

    def push(self, data: bytes, frames: int = 0) -> None:
        """Write or queue, as an owner does: in the order of calls."""
        assert self.peer is not None, "not connected"
        if self.kept:
            self.kept.append((data, frames))
            return
        taken = 0 if self.window == 0 else self.send_now(data)
        if taken < len(data):
            self.peer.busy()
            self.kept.append((data[taken:], frames))
        else:
            self._left(frames)

    def drain(self) -> None:
        """The other side reads everything, and goes on doing so."""
        assert self.peer is not None, "not connected"
        self.window = None
        kept, self.kept = self.kept, []
        for data, frames in kept:
            self.written += data
            self._left(frames)
        self.peer.idle()

    def _left(self, frames: int) -> None:
        assert self.peer is not None, "not connected"
        self.peer.delivered(frames)
        if self.room is not None:
            self.make_room(frames)
        self._wake()
