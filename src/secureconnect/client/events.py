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


class Cursors:
    """The last position seen of each channel. A cursor only moves forward."""

    def __init__(self, start: Mapping[str, Position] | None = None) -> None:
        self._seen: dict[str, Position] = dict(start or {})

    def after(self) -> dict[str, Position]:
        """What to resume from, for `subscribe` and for a poll."""
        return dict(self._seen)

    def admit(self, event: Event) -> bool:
        """Whether this event is new; then its channel's cursor moves to it."""
        if event.position is None:
            return True
        if not _is_behind(self._seen.get(event.channel), event.position):
            return False
        self._seen[event.channel] = event.position
        return True

    def begin(self, channel: str, position: Position, *, forced: bool = False) -> None:
        """The server's place in a channel: where a first subscription starts; `forced` when it could not resume from ours."""
        if forced or channel not in self._seen:
            self._seen[channel] = position

    def forget(self, channel: str) -> None:
        self._seen.pop(channel, None)


def _is_behind(seen: Position | None, position: Position) -> bool:
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
