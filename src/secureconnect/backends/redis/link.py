"""One connection after the other, for as long as the node lives: what is lost is dialled again, after a random pause.

While there is none, commands are refused at once: whoever asks has an answer without Redis, and the sooner the better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import anyio
from anyio.abc import TaskStatus

from secureconnect.errors import SecureConnectError
from secureconnect.resilience import full_jitter_s

from .address import Address
from .connection import Connection, Limits, connect
from .replies import ConnectionLost, Part, Reply, ScriptUnknown

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
"""Bounds of the pauses, full jitter: back well within the 2 s that a return may take (failure-policy.md §3)."""
STEADY_S = 5.0
"""A connection that held for so long ends a row of failures: a server that accepts and hangs up must not be dialled in a loop."""


class Script:
    """A Lua script. The server is sent its hash, and the text only when it does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """`use` is what for (command, publish, …); CLIENT LIST shows it. `random()` is uniform in [0, 1)."""

    def __init__(self, address: Address, use: str, *, random: Callable[[], float], limits: Limits | None = None) -> None:
        self.address, self.limits = address, limits or Limits()
        self.generation = 0
        """Connections so far: what was true of the server's side of one need not be true of the next."""
        self.lost_total = 0
        """Connections that ended, and tries that made none."""
        self.why = "not dialled yet"
        """There is no connection, or what ended the last one."""
        self._use, self._random = use, random
        self._connection: Connection | None = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.lost.is_set()

    @property
    def waiting(self) -> int:
        """Requests without an answer, those of callers that have left included."""
        return 0 if self._connection is None else len(self._connection.line)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the connections. Ready when the first try has ended, well or not. Cancellation: ends them."""
        failures, is_told = 0, False
        while True:
            began_s = anyio.current_time()
            try:
                async with connect(self.address, f"secureconnect-{self._use}", limits=self.limits) as connection:
                    self._connection = connection
                    self.generation += 1
                    if not is_told:
                        is_told = True
                        task_status.started()
                    await connection.lost.wait()
                    self.why = connection.why
            except ConnectionLost as error:
                self.why = error.why
            except SecureConnectError as error:
                self.why = str(error)
            finally:
                self._connection = None
            self.lost_total += 1
            if not is_told:
                is_told = True
                task_status.started()
            failures = 1 if anyio.current_time() - began_s > STEADY_S else failures + 1
            await anyio.sleep(full_jitter_s(failures, self._random(), first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S))

    async def command(self, *parts: Part) -> Reply:
        """One command. Raises and Cancellation: as `Connection.command`; ConnectionLost at once while there is none."""
        if self._connection is None:
            raise ConnectionLost(self.why)
        return await self._connection.command(*parts)

    async def script(self, script: Script, *, keys: Sequence[Part], arguments: Sequence[Part]) -> Reply:
        """Run it; a server that does not know it (yet, or since its restart) gets its text. Otherwise as `command`."""
        try:
            return await self.command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except ScriptUnknown:
            return await self.command("EVAL", script.text, len(keys), *keys, *arguments)

    def cut(self, why: str) -> None:
        """End the present connection; the next one follows."""
        if self._connection is not None:
            self._connection.cut(why)
