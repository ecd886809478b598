"""What waits for the reader of `events()`: bounded, and never in the way of answers. Nothing here waits for the network.

Theory. A program may read slowly, or only send and never read, and the connection must live on all the same: so taking an event
in never blocks. What is in the queue has moved its channel's cursor; what found no room has not, and its conversation is
*behind*: further events of it are refused, and when the reader has made room they are read from the conversation's log, from the
cursor on. That is lossless, in order, and asks for no more than fits. An entry that leaves a hole in the numbers is treated
alike. Channels without a log (`user:`, `call:`) keep nothing that long: what found no room there is told as one `gap`. What says
where a channel stands (`gap`, `subscribed`, `unsubscribed`) is kept, the latest of each channel; what has no number at all
(typing, presence) is dropped first, as the server does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from secureconnect.client.events import Cursors, Event, Position, beginning, gap_event, read_event

EVENTS_MAX = 1_000
"""Events that wait for the reader: as many as the server replays at once, so that one return fits."""
PAGE_MAX = 200
"""Entries read from a log at once: a few hundred KiB of chat."""
STANDINGS = ("gap", "subscribed", "unsubscribed")
LOG_PREFIX = "conversation:"
"""The channels that have a log."""


class Inbox:
    """The queue, the cursors, and the channels that are behind. Iterated by the program; one task may read logs for it."""

    def __init__(self, after: Mapping[str, Position], *, most: int = EVENTS_MAX) -> None:
        self.cursors = Cursors(after)
        self._most = most
        self._queue: deque[Event] = deque()
        self._owed: dict[str, Event] = {}
        self._behind: dict[str, int] = {}  # channel -> the highest sequence that was refused
        self._is_closed = False
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    # -- the reader
    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Event:
        """Cancellation: nothing is lost."""
        await anyio.lowlevel.checkpoint()
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            await self._changed.wait()
        event = self._queue.popleft()
        self._settle_owed()
        if len(self._queue) == self._most // 2:
            self._tell()
        return event

    def close(self) -> None:
        """Readers get what is here, then the end."""
        self._is_closed = True
        self._tell()

    # -- what arrives
    def take(self, event: Event) -> bool:
        """Whether this event was new, and is now waiting to be read."""
        if event.name == "gap":
            return self._gap(event)
        if event.name == "unsubscribed":
            self._left(str(event.data.get("channel", event.channel)))
        elif event.name == "subscribed" and "sequence" in event.data:
            self.placed({str(event.data.get("channel", event.channel)): event.data})
        if event.position is None:
            return self._put_standing(event) if event.name in STANDINGS else self._put(event)
        if not self.cursors.is_new(event):
            return False
        if event.channel in self._behind or self._is_full or self.cursors.leaves_hole(event):
            self._refuse(event)
            return False
        self.cursors.admit(event)
        return self._put(event)

    def placed(self, places: Mapping[str, Mapping[str, Any]], *, returns: bool = False) -> None:
        """The answers to `subscribe`, before the events that follow them. `returns`: the client was connected before.

        A channel that a returning client did not know may have been joined while it was away: a place at its end is told as a
        gap, for what came before may never have been seen.
        """
        for channel, place in places.items():
            if "error" in place or "sequence" not in place:
                continue
            position, seen = beginning(place), self.cursors.seen(channel)
            if not place.get("recovered", True):
                self._skip(channel, position, "reset" if place.get("reset") else "not_kept")
            elif seen is None:
                self.cursors.begin(channel, position)
                if returns and position == place["sequence"]:
                    self._put_standing(gap_event(channel, after=position, cause="joined_away", seen=None))

    def polled(self, after: Mapping[str, Position], *, returns: bool) -> None:
        """The `after` of an answer to a poll, behind its events: channels that are new to us begin there."""
        for channel, position in after.items():
            if self.cursors.seen(channel) is None:
                self.placed({channel: {"sequence": position}}, returns=returns)

    # -- catching up from the logs
    async def wait_behind(self) -> tuple[str, int, int]:
        """A conversation to be read on, as soon as half the room is free: channel, its cursor, how many entries fit."""
        while True:
            room = self._most - len(self._queue)
            for channel in self._behind if 2 * room >= self._most else ():
                seen = self.cursors.seen(channel)
                assert isinstance(seen, int)
                return channel, seen, min(PAGE_MAX, room)
            await self._changed.wait()

    async def wait_room(self) -> None:
        """Until half the room is free and no conversation is behind: what a poll brings then, is taken."""
        while self._behind or 2 * len(self._queue) > self._most:
            await self._changed.wait()

    def read_on(self, channel: str, page: Mapping[str, Any]) -> bool:
        """Take a page of a log in, `{entries, first, head}`. False: it brought nothing, ask again later."""
        seen, wanted = self.cursors.seen(channel), self._behind.get(channel)
        if wanted is None or not isinstance(seen, int):
            return True  # left meanwhile
        entries: Sequence[Mapping[str, Any]] = page.get("entries", ())
        first = int(page.get("first", 1))
        if first > seen + 1:
            self._skip(channel, first - 1, "retention")
        took = sum(not self._is_full and self.cursors.admit(event) and self._put(event) for event in map(read_event, entries))
        reached = self.cursors.seen(channel)
        if isinstance(reached, int) and reached >= wanted:
            del self._behind[channel]
            self._tell()
        return took > 0 or channel not in self._behind

    def give_up(self, channel: str, cause: str) -> None:
        """The log cannot be read: tell what does not come."""
        wanted = self._behind.pop(channel, None)
        if wanted is not None:
            self._skip(channel, wanted, cause)
        self._tell()

    # -- within
    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= self._most or bool(self._owed)

    def _put(self, event: Event) -> bool:
        if self._is_full:
            return False
        self._queue.append(event)
        self._tell()
        return True

    def _put_standing(self, event: Event) -> bool:
        """These are never dropped: the latest of each channel waits for room, and is then told before anything newer."""
        owed = self._owed.get(event.channel)
        if not self._put(event) and not (event.name == "subscribed" and owed is not None and owed.name == "gap"):
            self._owed[event.channel] = event
        return True

    def _settle_owed(self) -> None:
        while self._owed and len(self._queue) < self._most:
            self._queue.append(self._owed.pop(next(iter(self._owed))))
            self._tell()

    def _refuse(self, event: Event) -> None:
        assert event.position is not None
        if event.channel.startswith(LOG_PREFIX) and isinstance(self.cursors.seen(event.channel), int):
            assert isinstance(event.position, int)
            self._behind[event.channel] = max(event.position, self._behind.get(event.channel, 0))
            self._tell()
        else:
            self._skip(event.channel, event.position, "unread")

    def _gap(self, event: Event) -> bool:
        after = event.data.get("after")
        if not isinstance(after, int | str):
            return False
        return self._skip(str(event.data.get("channel", event.channel)), after, str(event.data.get("cause", "")))

    def _skip(self, channel: str, position: Position, cause: str) -> bool:
        """Events go on behind `position`. A conversation that is behind is read from its log anyway, unless that was set back."""
        seen, is_reset = self.cursors.seen(channel), cause == "reset"
        if is_reset:
            self._behind.pop(channel, None)
        elif channel in self._behind and cause == "not_kept":
            assert isinstance(position, int)
            self._behind[channel] = max(position, self._behind[channel])
            return False
        if not self.cursors.move(channel, position, back=is_reset):
            return False
        owed = self._owed.get(channel)
        if owed is not None and owed.name == "gap":
            seen = owed.data["seen"]
        return self._put_standing(gap_event(channel, after=position, cause=cause, seen=seen))

    def _left(self, channel: str) -> None:
        self.cursors.forget(channel)
        self._behind.pop(channel, None)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
