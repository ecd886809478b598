"""The channels open on this node: opening and closing them, and doing what their feeds ask for.

A channel opens with its first place. It listens on the bus, and when that is confirmed (or the bus is away, or silent for
LISTEN_S) its feed reads the log's tail; then it has a cursor and takes members. It stays open for a while after the last one
left: a poller comes back, and a channel without a log keeps its history for who reconnects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio

from .channel import Channel, Load
from .errands import Errands, Timers
from .errors import SourceAway
from .feed import Deliver, Effect, Moved, Opened, Read, WakeAt
from .frame import EPHEMERAL, Frame, Item, gap_frame
from .history import History
from .ledger import Ledger
from .limits import Limits
from .pump import Pump
from .source import Page, Source

LISTEN_S = 0.5
"""How long an opening channel waits for the bus to confirm; what it misses meanwhile, the digest finds."""


@dataclass(slots=True)
class _Opening:
    """Who waits for a channel's cursor."""

    done: anyio.Event = field(default_factory=anyio.Event)
    is_away: bool = False


class Channels:
    """The shell of all feeds. `listen` and `unlisten` are set by who has a bus; without one every channel is heard at once."""

    def __init__(
        self, limits: Limits, sources: Mapping[str, Source], ledger: Ledger, load: Load, *, errands: Errands, timers: Timers,
        epochs: Callable[[], str],
    ) -> None:  # fmt: skip
        self.by_name: dict[str, Channel] = {}
        self.pump = Pump(load, ledger, on_freed=self._freed)
        self.listen: Callable[[Channel], None] | None = None
        self.unlisten: Callable[[Channel], None] | None = None
        self.reads_total = self.reads_failed_total = 0
        self._limits, self._sources, self._ledger, self._load = limits, dict(sources), ledger, load
        self._errands, self._timers, self._epochs = errands, timers, epochs
        self._openings: dict[Channel, _Opening] = {}
        self._recent: dict[str, None] = {}  # channels by their last event, newest last
        self._feeds_reading = anyio.CapacityLimiter(limits.reads_max)
        self._replays_reading = anyio.CapacityLimiter(limits.reads_max)

    # -- opening and closing

    def source(self, name: str) -> Source | None:
        """The log of a channel, by the beginning of its name; None: it keeps its own history."""
        return next((source for prefix, source in self._sources.items() if name.startswith(prefix)), None)

    @contextmanager
    def hold(self, name: str) -> Iterator[Channel]:
        """The channel, opened if it was not, and open until the block ends."""
        channel = self.by_name.get(name) or self._open(name)
        channel.holds += 1
        channel.unused_since = None
        try:
            yield channel
        finally:
            channel.holds -= 1
            self.release(channel)

    def release(self, channel: Channel) -> None:
        """Somebody needs it no more; it closes when nobody does for a while."""
        if channel.members or channel.holds or channel.unused_since is not None:
            return
        channel.unused_since = now = anyio.current_time()
        self._timers.at(now + self._linger_s(channel), partial(self._close, channel, now))

    def _linger_s(self, channel: Channel) -> float:
        return self._limits.linger_s if channel.history is None else self._limits.history_s

    def _open(self, name: str) -> Channel:
        source = self.source(name)
        history = None if source is not None else self._new_history()
        channel = Channel(name, self._load, queue_max=self._limits.queue_max, source=source, history=history)
        self.by_name[name] = channel
        if self.listen is None:
            self.heard(channel)
        else:
            self._timers.at(anyio.current_time() + LISTEN_S, partial(self.heard, channel))
            self.listen(channel)
        return channel

    def _new_history(self) -> History:
        return History(self._epochs(), events_max=self._limits.history_events_max, keep_s=self._limits.history_s)

    def _close(self, channel: Channel, unused_since: float) -> None:
        if channel.unused_since != unused_since or self.by_name.get(channel.name) is not channel:
            return
        del self.by_name[channel.name]
        self._recent.pop(channel.name, None)
        if self.unlisten is not None:
            self.unlisten(channel)

    def heard(self, channel: Channel) -> None:
        """The bus has confirmed the subscription, or is not to be waited for any longer. Idempotent."""
        if channel.heard or self.by_name.get(channel.name) is not channel:
            return
        channel.heard = True
        if channel.feed is None:
            self._opened(channel)
        else:
            self._apply(channel, channel.feed.open(anyio.current_time()))

    def regained(self, channel: Channel) -> None:
        """It was not heard on the bus for a while. A log is repaired by the digest; a history may have a hole that none knows."""
        history = channel.history
        if history is not None and channel.heard:
            history.renew(self._epochs())
            self._move(channel, history.tail, "bus")
        self.heard(channel)

    async def wait_open(self, channel: Channel) -> None:
        """Until it takes members. Raises: SourceAway, when the next try to read the log's end fails."""
        if channel.heard and channel.cursor is not None:
            return
        opening = self._openings.setdefault(channel, _Opening())
        await opening.done.wait()
        if opening.is_away:
            raise SourceAway(f"the log of {channel.name} cannot be read")

    def _opened(self, channel: Channel, *, is_away: bool = False) -> None:
        opening = self._openings.pop(channel, None)
        if opening is not None:
            opening.is_away = is_away
            opening.done.set()

    # -- events

    def offer(self, name: str, items: Sequence[Item]) -> None:
        """Entries of a log, from this node or the bus."""
        channel = self.by_name.get(name)
        if channel is not None and channel.feed is not None:
            self._apply(channel, channel.feed.offer(items, anyio.current_time()))

    def hint(self, name: str, tail: int) -> None:
        """A log is said to end at `tail`."""
        channel = self.by_name.get(name)
        if channel is not None and channel.feed is not None:
            self._apply(channel, channel.feed.hint(anyio.current_time(), tail))

    def publish(self, name: str, event: str, make: Callable[[str], Frame]) -> str:
        """An event into a channel's own history; `make(position)` is its frame. Answers its position, "" when it is not open."""
        channel = self.by_name.get(name)
        if channel is None:
            return ""
        history = channel.history
        assert history is not None, f"{name} has a log: {event} belongs there, or is ephemeral"
        now = anyio.current_time()
        history.forget(now)
        item = history.append(make, now)
        if not history.is_watched:
            self._forget_later(history)
        self._pass_history(channel, history)
        return history.position(item.sequence)

    def send(self, name: str, frame: Frame) -> None:
        """An ephemeral event: to who is live, if there is room."""
        channel = self.by_name.get(name)
        if channel is None:
            return
        item = Item(EPHEMERAL, frame)
        if channel.take_ephemeral(item):
            self.pump.put(channel, (item,))
        else:
            self._ledger.lost("queue", len(channel.members))

    def recent_first(self) -> list[str]:
        """The channels with a log, the most recently busy first: the order of a sweep."""
        recent = [name for name in reversed(self._recent) if name in self.by_name]
        return recent + [name for name, channel in self.by_name.items() if channel.feed is not None and name not in self._recent]

    # -- reads

    async def read(self, channel: Channel, after: int, limit: int) -> Page:
        """For a replay. What it brings to light is a hint to the feed. Raises: SourceAway."""
        async with self._replays_reading:
            page = await self._read(channel, after, limit)
        if page.tail > (channel.cursor or 0):
            self.hint(channel.name, page.tail)
        return page

    async def look(self, channel: Channel) -> int:
        """The log's tail now. Raises: SourceAway."""
        return (await self.read(channel, 0, 0)).tail

    async def _read(self, channel: Channel, after: int, limit: int) -> Page:
        assert channel.source is not None
        self.reads_total += 1
        try:
            with anyio.fail_after(self._limits.read_deadline_s):
                page = await channel.source.read(channel.name, after, limit)
        except (SourceAway, TimeoutError) as error:
            self.reads_failed_total += 1
            raise SourceAway(f"the log of {channel.name} cannot be read") from error
        channel.first = max(channel.first, page.first)
        return page

    async def _read_for_feed(self, channel: Channel, read: Read) -> None:
        feed = channel.feed
        assert feed is not None
        try:
            async with self._feeds_reading:
                page = await self._read(channel, read.after or 0, read.limit)
        except SourceAway:
            effects = feed.read_failed(anyio.current_time())
            if feed.cursor is None:
                self._opened(channel, is_away=True)
        else:
            effects = feed.read_done(page.items, page.tail, anyio.current_time(), first=page.first)
        self._apply(channel, effects)

    # -- effects

    def _apply(self, channel: Channel, effects: Iterable[Effect]) -> None:
        if self.by_name.get(channel.name) is not channel:
            return
        for effect in effects:
            match effect:
                case Deliver(items):
                    self._deliver(channel, items)
                case Opened(cursor):
                    channel.written = cursor
                    self._opened(channel)
                case Read():
                    self._errands.begin(partial(self._read_for_feed, channel, effect))
                case WakeAt(time):
                    self._wake_at(channel, time)
                case Moved(cursor, cause):
                    self._move(channel, cursor, cause)
        if channel.feed is not None and channel.feed.full:
            self._load.starved[channel] = None

    def _deliver(self, channel: Channel, items: Sequence[Item]) -> None:
        if channel.feed is not None:
            self._recent.pop(channel.name, None)
            self._recent[channel.name] = None
        self.pump.put(channel, items)

    def _pass_history(self, channel: Channel, history: History) -> None:
        """What there is room for goes on to the pump; the rest waits in the history."""
        if history.first > history.cursor + 1:  # so much came at once that it was forgotten before it passed
            history.cursor = history.first - 1
            self._move(channel, history.cursor, "history")
        passed = []
        for item in history.after(history.cursor, history.tail - history.cursor):
            if not channel.take(item):
                self._load.starved[channel] = None
                break
            passed.append(item)
        if passed:
            history.cursor = passed[-1].sequence
            self._deliver(channel, passed)

    def _move(self, channel: Channel, cursor: int, cause: str) -> None:
        after = cursor if channel.history is None else channel.history.position(cursor)
        for member in channel.move_all(Item(cursor, gap_frame(channel.name, after=after, cause=cause))):
            member.peer.catch_up(member)

    def _wake_at(self, channel: Channel, time: float) -> None:
        if channel.wake_at is None or time < channel.wake_at:
            channel.wake_at = time
            self._timers.at(time, partial(self._wake, channel, time))

    def _wake(self, channel: Channel, time: float) -> None:
        if channel.wake_at == time:
            channel.wake_at = None
        if channel.feed is not None:
            self._apply(channel, channel.feed.wake(anyio.current_time()))

    def _freed(self, channel: Channel) -> None:
        if self.by_name.get(channel.name) is not channel:
            return
        if channel.feed is not None:
            self._apply(channel, channel.feed.freed(anyio.current_time()))
        elif channel.history is not None:
            self._pass_history(channel, channel.history)

    def _forget_later(self, history: History) -> None:
        due = history.due
        history.is_watched = due is not None
        if due is not None:
            self._timers.at(due, partial(self._forget, history))

    def _forget(self, history: History) -> None:
        history.forget(anyio.current_time())
        self._forget_later(history)
