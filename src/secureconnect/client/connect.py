"""`connect`: a client that runs as long as its block, and whose block raises what was raised in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import httpx

from secureconnect.client.client import Client, Token
from secureconnect.client.errors import AuthenticationLost, leaves
from secureconnect.client.events import Position
from secureconnect.client.http import Api


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token,
    channels: Sequence[str] | None = None,
    after: Mapping[str, Position] | None = None,
) -> AsyncIterator[Client]:
    """A client for the server at `url` (`http://host:port`), connected and kept connected until the block ends.

    `token`: an access token, or an async function that gives a fresh one before each connection.
    `channels`: `conversation:<id>` names; None: all conversations of the user, also those joined later.
    `after`: positions from an earlier client's `cursors()`.
    Raises: AuthenticationLost out of the block when no token is taken any more; what the block raises, as it was raised.
    """
    async with httpx.AsyncClient(base_url=url.rstrip("/")) as http:
        client = Client(url, token=token, channels=channels, after=after or {}, api=Api(http))
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.run)
                try:
                    yield client
                finally:
                    tasks.cancel_scope.cancel()
                    client.close()
        except ExceptionGroup as group:  # of the task group: the block itself has one cause
            failure = _cause(group)
        if failure is not None:
            raise failure


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the task group wrapped; the end of the login when that is why everything else ended."""
    causes = list(leaves(group))
    if all(isinstance(cause, AuthenticationLost) for cause in causes):
        return causes[0]
    return group.exceptions[0] if len(group.exceptions) == 1 else group
