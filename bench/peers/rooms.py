"""The plain protocol that the peers of the fan-out benches speak, and who is in which room.

`s0,3` subscribes the socket to rooms 0 and 3 and is answered `ok`; `p3:text` sends `text` to everyone in room 3. No
authentication, no numbers, no storage: the cheapest thing one could call a chat server.
"""

from __future__ import annotations

from typing import Generic, TypeVar

S = TypeVar("S")
OK = "ok"


class Rooms(Generic[S]):
    """`S` is whatever the library calls a connection."""

    def __init__(self) -> None:
        self.members: dict[str, dict[S, None]] = {}

    def subscribe(self, socket: S, text: str) -> None:
        for room in text[1:].split(","):
            self.members.setdefault(room, {})[socket] = None

    def message(self, text: str) -> tuple[dict[S, None], str]:
        """Who gets it, and what."""
        room, _, body = text[1:].partition(":")
        return self.members.get(room, {}), body

    def leave(self, socket: S) -> None:
        for members in self.members.values():
            members.pop(socket, None)
