"""The choke point of all that is asked of Redis: a link inside its stack. Above it there are only the house's own errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from secureconnect.errors import OutcomeUnknown
from secureconnect.resilience import Stack

from .link import Link, Script
from .replies import ConnectionLost, Part, Reply

LANE: Final = "command"
PROBE_KEY: Final = "secureconnect:probe"
PROBE_LIFE_S: Final = 60


class Client:
    """`stack` is made from the REDIS policy."""

    def __init__(self, link: Link, stack: Stack) -> None:
        self.link, self.stack = link, stack

    async def command(self, *parts: Part, changes: bool, is_repeatable: bool) -> Reply:
        """One command with all that guards it. Raises and Cancellation: as `Stack`, and CommandRefused, which is a bug."""
        return await self._guarded(lambda: self.link.command(*parts), changes=changes, is_repeatable=is_repeatable)

    async def script(
        self, script: Script, *, keys: Sequence[Part], arguments: Sequence[Part], changes: bool, is_repeatable: bool
    ) -> Reply:
        """One script, likewise: all of it is done or nothing."""
        return await self._guarded(
            lambda: self.link.script(script, keys=keys, arguments=arguments), changes=changes, is_repeatable=is_repeatable
        )

    async def probe(self) -> None:
        """The write probe of health and breaker, past the stack; the prober sets its deadline. Raises: as `Link.command`."""
        await self.link.command("SET", PROBE_KEY, 1, "EX", PROBE_LIFE_S)

    async def _guarded(self, call: Callable[[], Awaitable[Reply]], *, changes: bool, is_repeatable: bool) -> Reply:
        async def translated() -> Reply:
            try:
                return await call()
            except ConnectionLost as error:
                if changes and error.was_sent:
                    raise OutcomeUnknown(f"{error}; it may have been done", details=error.details) from error
                raise

        return await self.stack(translated, lane=LANE, changes=changes, is_repeatable=is_repeatable)
