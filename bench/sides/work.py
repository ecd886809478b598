"""What both sides do, in the same words: the message that is stored, the keys, the shapes of a side."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Final, TypeAlias

from secureconnect.backends.system import SystemIds
from secureconnect.features.log.model import MESSAGE_CREATED, NewEntry
from secureconnect.ids import ConversationId, MessageId, UserId

Operation: TypeAlias = Callable[[], Awaitable[object]]
AsyncSide: TypeAlias = Callable[[str], AbstractAsyncContextManager[Mapping[str, Operation]]]
SyncSide: TypeAlias = Callable[[str], AbstractContextManager[tuple[Mapping[str, Callable[[], object]], bool]]]
"""The flag: whether several in flight are so many threads; else they follow one another."""

KEY: Final = "bench:stores"
VALUE: Final = b"v" * 128
CONTENT: Final = b'{"content":"' + b"x" * 128 + b'"}'
ACTOR: Final = UserId("6f1d7c1e-0000-4000-8000-000000000001")

_ids = SystemIds()


def new_conversation() -> ConversationId:
    return ConversationId(_ids.new())


def new_message() -> NewEntry:
    """Of 128 characters, under a key of its own."""
    message = MessageId(_ids.new())
    return NewEntry(message, MESSAGE_CREATED, CONTENT, ACTOR, time.time_ns() // 1000, message)


def same(found: object, wanted: object) -> None:
    """Raises: RuntimeError. Cheap enough to stand in every operation of both sides."""
    if found != wanted:
        raise RuntimeError(f"got {found!r}, wanted {wanted!r}")
