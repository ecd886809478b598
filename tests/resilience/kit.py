"""Dependencies that answer, fail and hang as a test wants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from secureconnect.errors import SecureConnectError


def answering(*answers: object) -> Callable[[], Awaitable[object]]:
    """Gives these one after another; exceptions are raised. The last one stays."""
    left = list(answers)

    async def call() -> object:
        await anyio.lowlevel.checkpoint()
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call


def refused_at_once(coroutine: Coroutine[Any, Any, object], error: type[SecureConnectError]) -> SecureConnectError:
    """The refusal of a call that raises in its first step, before it has awaited anything."""
    with pytest.raises(error) as refusal:
        coroutine.send(None)
    return refusal.value
