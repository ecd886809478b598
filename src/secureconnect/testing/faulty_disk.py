"""A disk in memory that fails on demand and loses its power in the middle of a write. Implements `ports.Disk` on every loop."""

from __future__ import annotations

import anyio.lowlevel


class PowerCut(BaseException):
    """The machine is gone: nobody handles this. What the disk has is in `FaultyDisk.files`."""


class FaultyDisk:
    """Files that survive, under `files`. `after_power_cut` gives them to the machine's next start."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files or {}
        self.fails = False
        """Every write raises OSError, and has put half of its data there."""
        self.writes_left: int | None = None
        """So many more writes are done whole; the power goes in the next. None: it stays."""
        self.torn = 0
        """Bytes of that write which the disk has kept; a replacement is there when this is above 0."""

    def after_power_cut(self) -> FaultyDisk:
        return FaultyDisk(dict(self.files))

    async def read(self, name: str) -> bytes | None:
        await anyio.lowlevel.checkpoint()
        self._check()
        return self.files.get(name)

    async def write(self, name: str, data: bytes, *, at: int) -> None:
        await anyio.lowlevel.checkpoint()
        self._check()
        before = self.files.get(name, b"")
        assert at <= len(before), "a hole"
        taken = self._taken(len(data))
        self.files[name] = before[:at] + data[:taken]
        self._end_write(taken == len(data) and not self.fails)

    async def replace(self, name: str, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self._check()
        if not self.fails and (self.writes_left != 0 or self.torn):
            self.files[name] = data
        self._end_write(not self.fails)

    def _check(self) -> None:
        if self.writes_left is not None and self.writes_left < 0:
            raise PowerCut

    def _taken(self, size: int) -> int:
        if self.fails:
            return size // 2
        return min(self.torn, size) if self.writes_left == 0 else size

    def _end_write(self, is_well: bool) -> None:
        if self.writes_left is not None and not self.fails:
            self.writes_left -= 1
            self._check()
        if not is_well:
            raise OSError("the disk is broken")
