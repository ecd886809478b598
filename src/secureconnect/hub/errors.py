"""What can go wrong in a hub, as its own small tree: a library's callers catch these, not ours."""

from __future__ import annotations


class HubError(Exception):
    """Root of everything a hub raises on purpose."""


class Full(HubError):
    """No room in a channel's queue within the wait; nothing was stored or sent. `channel` names it."""

    def __init__(self, channel: str) -> None:
        super().__init__(f"no room in channel {channel}")
        self.channel = channel


class Away(HubError):
    """Something outside the hub does not answer; later may help."""


class SourceAway(Away):
    """The log behind a channel cannot be read now."""


class BusAway(Away):
    """The bus between nodes is away, or this link to it was cut."""


class TableAway(Away):
    """The table of digests cannot be read or written now."""


class Closed(HubError):
    """The peer has left the hub; it takes no more places."""
