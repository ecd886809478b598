"""`/v1/presence` as clients see it: names, types and codes, through dispatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.features.presence.kit import House, Time, Unsteady

from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.features.auth.model import Identity
from secureconnect.features.presence.leasing import LINGER_S
from secureconnect.ids import RequestId, SessionId, UserId, as_uuid
from secureconnect.ports import rfc3339
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context
from secureconnect.server.routes import presence
from secureconnect.server.routes.presence import PresenceList
from secureconnect.server.wire import Response

ADA, BOB, EVE, CAP = (UserId(as_uuid(bytes(15) + bytes([number]))) for number in (1, 2, 3, 0xAB))


class Face:
    """Ada's requests to one node."""

    def __init__(self) -> None:
        time = Time()
        self.store = Unsteady(MemoryLeaseStore(time))
        self.house = House(self.store, time)
        self.house.members.conversations = {"lunch": [ADA, BOB]}
        self.node = self.house.start("n1")
        self._rows = {row.name: row for row in presence.endpoints(self.node)}

    async def ask(self, name: str, **values: object) -> Response:
        identity = Identity(ADA, SessionId("s"), "", "", "user", 2**31)
        return await Dispatcher().call(self._rows[name], values, Context("http", "192.0.2.7:5", RequestId("r"), identity))

    async def read(self, user_ids: object) -> dict[str, Any]:
        response = await self.ask("presence.read", user_ids=user_ids)
        assert response.data is not None, response.error
        typed = msgspec.json.decode(response.data, type=PresenceList)
        answer: dict[str, Any] = json.loads(response.data)
        assert json.loads(msgspec.json.encode(typed)) == answer, "the schema names every field and no other"
        return answer

    async def refusal(self, name: str, values: Mapping[str, object]) -> tuple[int, object]:
        response = await self.ask(name, **values)
        assert response.error is not None
        return response.status, response.error.details.get("field")


@pytest.fixture
def face() -> Face:
    return Face()


async def test_each_asked_for_is_answered_once_in_the_order_asked(face: Face) -> None:
    face.node.arrived(BOB)
    face.node.arrived(EVE)
    expected = [{"user_id": user, "status": status} for user, status in ((EVE, "offline"), (BOB, "online"), (ADA, "offline"))]
    assert await face.read(f"{EVE}, {BOB},{ADA},{BOB}") == {"presence": expected}
    assert await face.read([EVE, BOB, ADA]) == {"presence": expected}
    assert await face.read(CAP.upper()) == {"presence": [{"user_id": CAP, "status": "offline"}]}


async def test_who_is_gone_was_last_seen_then(face: Face) -> None:
    face.node.arrived(BOB)
    await face.house.wait(1)
    face.node.left(BOB)
    await face.house.wait(LINGER_S)
    last = rfc3339(face.house.time.now_us())
    await face.house.wait(60)
    assert await face.read(BOB) == {"presence": [{"user_id": BOB, "status": "offline", "last_seen": last}]}


async def test_an_answer_that_may_lack_somebody_says_so(face: Face) -> None:
    face.store.is_away = True
    face.node.arrived(BOB)
    assert await face.read(BOB) == {"presence": [{"user_id": BOB, "status": "online"}], "partial": True}


async def test_the_database_away_is_503_as_nobody_knows_who_may_be_seen(face: Face) -> None:
    face.house.members.is_down = True
    assert (await face.ask("presence.read", user_ids=BOB)).status == 503


@pytest.mark.parametrize("given", ["", "bob", f"{BOB},", ",".join([BOB] * 101), [BOB] * 101, [""], 7, None, {"a": 1}])
async def test_what_names_no_user_or_too_many_is_400(face: Face, given: object) -> None:
    assert await face.refusal("presence.read", {"user_ids": given}) == (400, "user_ids")


async def test_a_hundred_are_answered(face: Face) -> None:
    users = [as_uuid(bytes(14) + number.to_bytes(2, "big")) for number in range(100)]
    assert [one["user_id"] for one in (await face.read(",".join(users)))["presence"]] == users


async def test_saying_so_is_there_without_a_socket_and_may_be_taken_back(face: Face) -> None:
    for is_online, status in ((True, "online"), (False, "offline")):
        response = await face.ask("presence.say", online=is_online)
        assert (response.status, json.loads(response.data or b"")) == (200, {"message": "Presence updated"})
        assert (await face.read(ADA))["presence"][0]["status"] == status
    assert await face.refusal("presence.say", {"online": "perhaps"}) == (400, "online")
    face.store.is_away = True
    assert (await face.ask("presence.say", online=True)).status == 200
