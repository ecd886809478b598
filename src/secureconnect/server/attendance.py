"""Who wants to know which users are here: told in the very step in which a socket or a poll begins or ends."""

from __future__ import annotations

from typing import Protocol

from secureconnect.ids import UserId


class Attendance(Protocol):
    """Counts. Both are synchronous, cheap, and do not raise; each `arrived` is followed by one `left`."""

    def arrived(self, user: UserId) -> None: ...

    def left(self, user: UserId) -> None: ...
