"""Each row of the table against the code: its homes are taken away, and what is read and written then is what the row says.

A demonstration returns the words that it saw; the table is compared with them, never with itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest
import trio
from tests.fallback.nodes import PASSWORD, Home, open_nodes
from trio.testing import MockClock

from secureconnect.errors import Forbidden, NotAuthenticated, Unavailable
from secureconnect.fallback import POLICY
from secureconnect.features.auth.model import Login, Registration
from secureconnect.features.conversations.service import NewConversation
from secureconnect.features.messages.model import NewMessage
from secureconnect.ids import ConversationId, UserId
from secureconnect.testing.socket_client import SocketClient

Saw = tuple[str, str]
"""What reading and writing came to, in the table's words."""
LOCK_TRIES = 5


async def outcome(call: Awaitable[object], otherwise: str = "works") -> str:
    """`refused` is 503 with a time to come back."""
    try:
        await call
    except Unavailable as error:
        return "refused" if error.status == 503 and error.retry_after_s is not None else str(error)
    return otherwise


class Scene:
    """Two nodes; anna and bert are members of a room, each connected to the own node. Cleo is a stranger."""

    def __init__(self, first: Home, second: Home) -> None:
        self.first, self.second = first, second
        self.node = first.node

    async def set(self) -> None:
        self.anna, self.bert, self.cleo = [await self.first.login(name) for name in ("anna", "bert", "cleo")]
        new = NewConversation("group", title="room", participant_ids=[self.bert.user.id])
        room, _ = await self.node.conversations.create(self.anna.user.id, new)
        self.room = ConversationId(room.conversation.id)

    def lose(self, *homes: str) -> None:
        for home in (self.first, self.second):
            home.lose(*homes)

    async def listener(self, home: Home, who: Login) -> SocketClient:
        client, _ = await home.socket(who)
        answer = await client.call("subscribe", channels=["all"])
        assert "result" in answer
        client.events.clear()
        return client

    def send(self, text: str) -> Awaitable[object]:
        return self.node.messages.send(self.anna.user.id, self.room, NewMessage(content=text, is_encrypted=True))

    def change(self) -> Awaitable[object]:
        return self.node.conversations.create(self.anna.user.id, NewConversation("group", title="another"))


async def hears(client: SocketClient, name: str, *, within_s: float) -> bool:
    with trio.move_on_after(within_s):
        while (await client.next_event()).get("event") != name:
            pass
        return True
    return False


async def access_tokens(scene: Scene) -> Saw:
    scene.lose("sql", "redis", "bus")
    identity = scene.node.auth.verify(scene.anna.access_token)
    assert identity.user == scene.anna.user.id
    return "works", "none"


async def users(scene: Scene) -> Saw:
    scene.lose("sql")
    reads = await outcome(scene.node.auth.login("anna@example.org", PASSWORD, origin="1.2.3.4"))
    return reads, await outcome(scene.node.auth.register(Registration("dora@example.org", PASSWORD, "dora", "Dora")))


async def sessions(scene: Scene) -> Saw:
    scene.lose("sql")
    scene.node.auth.check(scene.node.auth.verify(scene.anna.access_token))
    return "works", await outcome(scene.node.auth.refresh(scene.anna.refresh_token))


async def revocations(scene: Scene) -> Saw:
    auth = scene.node.auth
    await auth.logout(auth.verify(scene.anna.access_token))
    scene.lose("sql")
    with pytest.raises(NotAuthenticated):
        auth.verify(scene.anna.access_token)  # what was known holds
    writes = await outcome(auth.logout(auth.verify(scene.bert.access_token)), "own")
    with pytest.raises(NotAuthenticated):
        auth.verify(scene.bert.access_token)  # and so does what is decided here
    return "own", writes


async def lockout(scene: Scene) -> Saw:
    scene.lose("redis")
    lockouts = scene.node.lockouts
    for _ in range(LOCK_TRIES):
        await lockouts.failed("anna@example.org", "1.2.3.4")
    with pytest.raises(NotAuthenticated):
        await lockouts.check("anna@example.org", "1.2.3.4")
    return "own", "own"


async def rate_limits(scene: Scene) -> Saw:
    scene.lose("redis")
    verdicts = list[str]()
    for _ in range(2):
        got = await scene.first.ask("GET /v1/conversations", scene.anna)
        assert got.status == 200
        verdicts.append(got.headers["x-ratelimit-remaining"])
    assert int(verdicts[1]) == int(verdicts[0]) - 1, "it counts"
    return "own", "own"


async def presence(scene: Scene) -> Saw:
    scene.lose("redis")
    client, _ = await scene.first.socket(scene.anna)
    seen, is_partial = await scene.node.presence.read(scene.anna.user.id, [scene.anna.user.id])
    assert is_partial
    await client.close()
    return ("own" if seen[0].is_there else "refused"), "own"


async def membership(scene: Scene) -> Saw:
    access = scene.node.access
    row = next(one for one in POLICY if one.data == "membership")
    assert row.staleness_s is not None
    await access.member(scene.room, scene.anna.user.id)
    scene.lose("sql")
    await trio.sleep(row.staleness_s - 1)
    await access.member(scene.room, scene.anna.user.id)
    await trio.sleep(2)
    assert await outcome(access.member(scene.room, scene.anna.user.id)) == "refused"
    return "cached", await outcome(scene.node.conversations.members.add(scene.anna.user.id, scene.room, [scene.cleo.user.id]))


async def conversations(scene: Scene) -> Saw:
    scene.lose("sql")
    return await outcome(scene.node.conversations.get(scene.anna.user.id, scene.room)), await outcome(scene.change())


async def messages(scene: Scene) -> Saw:
    await scene.send("before")
    scene.lose("sql")
    reads = await outcome(scene.node.messages.history(scene.anna.user.id, scene.room, limit=10))
    writes = await outcome(scene.send("lost?"))
    scene.first.heal()
    await trio.sleep(5)
    page = await scene.node.messages.history(scene.anna.user.id, scene.room, limit=10)
    assert len(page.messages) == 1, "what was refused was not stored"
    return reads, writes


async def delivery(scene: Scene) -> Saw:
    row = next(one for one in POLICY if one.data == "delivery between nodes")
    assert row.staleness_s is not None
    far = await scene.listener(scene.second, scene.bert)
    scene.lose("bus")
    await trio.sleep(5)  # both have noticed
    await scene.send("by the other way")
    assert await hears(far, "message.created", within_s=row.staleness_s)
    return "detour", "detour"


async def typing(scene: Scene) -> Saw:
    near, far = await scene.listener(scene.first, scene.bert), await scene.listener(scene.second, scene.bert)
    anna = await scene.listener(scene.first, scene.anna)
    scene.lose("bus")
    await anna.call("typing", conversation_id=scene.room)
    assert await hears(near, "typing", within_s=1)
    assert not await hears(far, "typing", within_s=10)
    return "own", "own"


SHOWN: Mapping[str, Callable[[Scene], Awaitable[Saw]]] = {
    "access tokens": access_tokens,
    "users and passwords": users,
    "sessions": sessions,
    "revocations": revocations,
    "lockout": lockout,
    "rate limits": rate_limits,
    "presence": presence,
    "membership": membership,
    "conversations": conversations,
    "messages": messages,
    "delivery between nodes": delivery,
    "typing": typing,
}


def test_every_row_is_demonstrated() -> None:
    assert [row.data for row in POLICY] == list(SHOWN)


@pytest.mark.parametrize("row", POLICY, ids=lambda row: row.data)
async def test_it_does_what_the_row_says(row: object, autojump_clock: MockClock) -> None:
    (found,) = [one for one in POLICY if one is row]
    async with open_nodes("n1", "n2") as (first, second):
        scene = Scene(first, second)
        await scene.set()
        assert await SHOWN[found.data](scene) == (found.reads, found.writes)


async def test_a_stranger_stays_one_while_the_database_is_away(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        scene = Scene(home, home)
        await scene.set()
        stranger = UserId(scene.cleo.user.id)
        with pytest.raises(Forbidden):
            await home.node.access.member(scene.room, stranger)
        home.lose("sql")
        await trio.sleep(10)
        with pytest.raises(Forbidden):
            await home.node.access.member(scene.room, stranger)
