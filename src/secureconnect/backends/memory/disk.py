"""Files that end with the process, on every event loop: a disk for a node that need remember nothing."""

from __future__ import annotations

import anyio.lowlevel


class MemoryDisk:
    """Implements `ports.Disk`."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        await anyio.lowlevel.checkpoint()
        return self._files.get(name)

    async def write(self, name: str, data: bytes, *, at: int) -> None:
        await anyio.lowlevel.checkpoint()
        self._files[name] = self._files.get(name, b"")[:at] + data

    async def replace(self, name: str, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self._files[name] = data
