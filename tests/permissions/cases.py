"""The scene of the permission tests, and with which parameters each operation is asked for in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.permissions.client import Client, Reply

PASSWORD = "correct horse battery staple"
PEOPLE = ("other_user", "removed_member", "member", "admin", "bystander", "newcomer")
WHO = ("no_token", "garbage_token", "expired_token", "revoked_token", "other_user", "removed_member", "member", "admin")
"""The callers, in the order of the columns of expected.toml."""


@dataclass
class Person:
    user_id: str
    email: str
    token: str


@dataclass
class Scene:
    """Fresh for each question, so that no answer depends on the one before."""

    world: World
    conversation: str
    message: str
    session: str = ""
    """A login session of the member, where the operation is about one."""
    session_token: str = ""


class World:
    """People who are registered once, and the bad tokens."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.people: dict[str, Person] = {}
        self.revoked = ""
        self.refresh_token = ""
        self._numbers = count(1)

    async def settle(self) -> None:
        for name in PEOPLE:
            answer = await self.ask("auth.register", self.registration(name))
            self.people[name] = Person(answer["user"]["user_id"], answer["user"]["email"], answer["access_token"])
        answer = await self.login("member")
        self.revoked = answer["access_token"]
        await self.ask("auth.logout", {}, token=self.revoked)
        self.refresh_token = (await self.login("member"))["refresh_token"]

    def registration(self, name: str) -> dict[str, object]:
        number = next(self._numbers)
        email = f"{name}.{number}@example.com"
        return {"email": email, "username": f"{name}_{number}", "password": PASSWORD, "display_name": name}

    async def login(self, name: str) -> Mapping[str, Any]:
        return await self.ask("auth.login", {"email": self.people[name].email, "password": PASSWORD})

    async def scene(self) -> Scene:
        p = self.people
        admin = p["admin"].token
        members = [p[name].user_id for name in ("member", "bystander", "removed_member")]
        new = {"type": "group", "participant_ids": members, "is_e2ee_enabled": False}
        conversation = (await self.ask("conversations.create", new, token=admin))["conversation_id"]
        message = {"conversation_id": conversation, "content": "hello"}
        sent = await self.ask("messages.send", message, token=p["member"].token)
        gone = {"conversation_id": conversation, "user_id": p["removed_member"].user_id}
        await self.ask("conversations.remove_participant", gone, token=admin)
        return Scene(self, conversation, sent["message_id"])

    async def login_scene(self) -> Scene:
        login = await self.login("member")
        return Scene(self, "", "", login["session_id"], login["access_token"])

    async def leave(self, scene: Scene) -> None:
        """End what is left of the scene's login: a user keeps few sessions, and the oldest would have to go."""
        if scene.session_token:
            await self.over_http("auth.logout", {}, token=scene.session_token)

    async def token(self, who: str, *, fresh: bool) -> str | None:
        if who in self.people:
            return str((await self.login(who))["access_token"]) if fresh else self.people[who].token
        token: dict[str, str | None] = {
            "no_token": None,
            "garbage_token": "eyJhbGciOiJub25lIn0.e30.",
            "expired_token": self.client.expired(self.people["member"].token),
            "revoked_token": self.revoked,
        }
        return token[who]

    async def ask(self, name: str, params: Mapping[str, object], *, token: str | None = None) -> Mapping[str, Any]:
        reply = await self.over_http(name, params, token=token)
        assert reply.status < 300, (name, reply)
        return reply.data

    async def over_http(self, name: str, params: Mapping[str, object], *, token: str | None) -> Reply:
        operation = self.client.operations[name]
        rest, path = dict(params), operation.path
        for place in [part[1:] for part in path.split("/") if part.startswith(":")]:
            path = path.replace(":" + place, str(rest.pop(place)))
        if operation.method in ("GET", "DELETE"):
            query = {key: str(value) for key, value in rest.items()}
            return await self.client.http(operation.method, path, query=query, body=None, token=token)
        return await self.client.http(operation.method, path, query={}, body=rest, token=token)

    def heard(self, name: str, reply: Reply) -> None:
        """A refresh token is good once: keep the one that replaced it."""
        if name == "auth.refresh" and "refresh_token" in reply.data:
            self.refresh_token = reply.data["refresh_token"]


Params = Callable[[Scene], Mapping[str, object]]


def _conversation(scene: Scene) -> dict[str, object]:
    return {"conversation_id": scene.conversation}


def _message(scene: Scene) -> dict[str, object]:
    return {"message_id": scene.message}


def _bystander(scene: Scene) -> dict[str, object]:
    return {"conversation_id": scene.conversation, "user_id": scene.world.people["bystander"].user_id}


def _nothing(scene: Scene) -> dict[str, object]:
    return {}


FRESH_TOKEN = ("auth.logout",)
"""Operations that end the caller's session: each question brings a token of its own."""
NEEDS_SESSION = ("auth.session_end",)

PARAMS: Mapping[str, Params] = {
    "auth.register": lambda scene: scene.world.registration("somebody"),
    "auth.login": lambda scene: {"email": scene.world.people["bystander"].email, "password": PASSWORD},
    "auth.refresh": lambda scene: {"refresh_token": scene.world.refresh_token},
    "auth.logout": _nothing,
    "auth.profile": _nothing,
    "auth.sessions": _nothing,
    "auth.session_end": lambda scene: {"session_id": scene.session},
    "conversations.create": lambda scene: {
        "type": "group",
        "participant_ids": [scene.world.people["newcomer"].user_id],
    },
    "conversations.list": _nothing,
    "conversations.get": _conversation,
    "conversations.update": lambda scene: _conversation(scene) | {"title": "Dinner"},
    "conversations.settings": lambda scene: _conversation(scene) | {"members_may_invite": True},
    "conversations.delete": _conversation,
    "conversations.participants": _conversation,
    "conversations.add_participants": lambda scene: _conversation(scene) | {"user_ids": [scene.world.people["newcomer"].user_id]},
    "conversations.remove_participant": _bystander,
    "conversations.set_role": lambda scene: _bystander(scene) | {"role": "admin"},
    "conversations.leave": _conversation,
    "conversations.log": _conversation,
    "messages.send": lambda scene: _conversation(scene) | {"content": "hello"},
    "messages.list": _conversation,
    "messages.get": _message,
    "messages.edit": lambda scene: _message(scene) | {"content": "changed"},
    "messages.delete": _message,
    "messages.poll": _conversation,
    "presence.read": lambda scene: {"user_ids": scene.world.people["bystander"].user_id},
    "presence.say": lambda scene: {"online": True},
    "realtime.poll": lambda scene: {"channels": f"conversation:{scene.conversation}"},
    "system.livez": _nothing,
    "system.readyz": _nothing,
    "system.healthz": _nothing,
    "system.health": _nothing,
    "system.metrics": _nothing,
    "system.openapi": _nothing,
}
