"""Events and cursors, pure: what has been seen of each channel, so that nothing is delivered twice however it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Position = int | str
"""Of a conversation: the sequence of an entry. Of `user:` and `call:` channels: the server's own `epoch-offset`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as the server sent it. `position` is None for what is not kept (typing, presence)."""

    name: str
    channel: str
    data: Mapping[str, Any]
    position: Position | None = None


def read_event(frame: Mapping[str, Any]) -> Event:
    """Any frame with an `event` field."""
    position = frame.get("sequence", frame.get("position"))
    return Event(
        str(frame["event"]),
        str(frame.get("channel", "")),
        frame.get("data") or {},
        position if isinstance(position, int | str) else None,
    )


def gap_event(channel: str, *, after: Position, cause: str, seen: Position | None) -> Event:
    """What a program is told when events up to `after` do not come by themselves: they may be read, behind `seen`.

    `seen`: the last position that did come; None when the client was never in the channel.
    """
    return Event("gap", channel, {"channel": channel, "after": after, "cause": cause, "seen": seen})


def beginning(place: Mapping[str, Any]) -> Position:
    """The cursor that belongs to a place the server gave: what was missed up to its `sequence` is still to come."""
    position: Position = place["sequence"]
    missed = int(place.get("missed", 0)) if place.get("recovered", True) else 0
    if isinstance(position, int):
        return position - missed
    epoch, _, offset = position.rpartition("-")
    return f"{epoch}-{int(offset) - missed}" if missed and offset.isdecimal() else position


class Cursors:
    """The last position seen of each channel. A cursor moves forward, and back only when the server's log was set back."""

    def __init__(self, start: Mapping[str, Position] | None = None) -> None:
        self._seen: dict[str, Position] = dict(start or {})

    def __len__(self) -> int:
        return len(self._seen)

    def after(self) -> dict[str, Position]:
        """What to resume from, for `subscribe` and for a poll."""
        return dict(self._seen)

    def seen(self, channel: str) -> Position | None:
        return self._seen.get(channel)

    def is_new(self, event: Event) -> bool:
        return event.position is None or is_behind(self._seen.get(event.channel), event.position)

    def leaves_hole(self, event: Event) -> bool:
        """Whether entries between the cursor and this one are missing: their numbers are dense."""
        seen = self._seen.get(event.channel)
        return isinstance(seen, int) and isinstance(event.position, int) and event.position > seen + 1

    def admit(self, event: Event) -> bool:
        """Whether this event is new; then its channel's cursor moves to it."""
        if not self.is_new(event):
            return False
        if event.position is not None:
            self._seen[event.channel] = event.position
        return True

    def begin(self, channel: str, position: Position) -> None:
        """Where a first subscription starts; a cursor that is there stays."""
        self._seen.setdefault(channel, position)

    def move(self, channel: str, position: Position, *, back: bool = False) -> bool:
        """The server does not resume from our cursor: go on behind `position`. False: the cursor is there already.

        `back`: the log was set back, so that a lower position is right.
        """
        seen = self._seen.get(channel)
        if seen == position or not (back or is_behind(seen, position)):
            return False
        self._seen[channel] = position
        return True

    def forget(self, channel: str) -> None:
        self._seen.pop(channel, None)


def is_behind(seen: Position | None, position: Position) -> bool:
    """Whether `position` lies after `seen`. Another epoch is another history: everything of it is new."""
    if seen is None:
        return True
    if isinstance(seen, int) and isinstance(position, int):
        return position > seen
    old_epoch, _, old = str(seen).rpartition("-")
    new_epoch, _, new = str(position).rpartition("-")
    if old_epoch != new_epoch or not (old.isdigit() and new.isdigit()):
        return True
    return int(new) > int(old)
