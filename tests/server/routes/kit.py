"""The operations of conversations and messages through dispatch, as a front would call them for logged-in people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from tests.features.conversations.kit import ADA, World

from secureconnect.features.auth.model import Identity
from secureconnect.ids import RequestId, SessionId, UserId
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context, Endpoint
from secureconnect.server.routes import conversations, messages
from secureconnect.server.wire import Response


class Face:
    """Calls an operation by its name; the answer's data is checked against the row's schema."""

    def __init__(self, world: World) -> None:
        self.world = world
        rows = [*conversations.endpoints(world.conversations), *messages.endpoints(world.messages)]
        self.rows: dict[str, Endpoint] = {row.name: row for row in rows}
        self.dispatcher = Dispatcher()

    async def respond(self, name: str, me: UserId | None, /, **values: object) -> Response:
        identity = Identity(me, SessionId("s"), "", "", "user", 2**31) if me is not None else None
        context = Context("http", "192.0.2.7:50123", RequestId("r1"), identity)
        return await self.dispatcher.call(self.rows[name], values, context)

    async def call(self, name: str, me: UserId = ADA, /, *, expect: int = 200, **values: object) -> dict[str, Any]:
        response = await self.respond(name, me, **values)
        assert response.error is None, (response.error.word, response.error.message, response.error.details)
        assert response.status == expect
        assert response.data is not None
        self.check(name, response.data)
        answer: dict[str, Any] = json.loads(response.data)
        return answer

    async def refusal(self, name: str, me: UserId | None = ADA, /, **values: object) -> tuple[int, str, Mapping[str, object]]:
        response = await self.respond(name, me, **values)
        assert response.error is not None, response.data
        assert self.dispatcher.counters.unexpected == 0
        return response.status, response.error.word, response.error.details

    def check(self, name: str, data: bytes) -> None:
        """The schema says what is answered: every field, and no other (a second decoding finds what it does not name)."""
        shape = self.rows[name].result
        typed = msgspec.json.decode(data, type=shape)
        assert json.loads(msgspec.json.encode(typed)) == json.loads(data)
