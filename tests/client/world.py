"""A real server with two people, the line to it, and a program that reads a client's events as a careful program does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import httpx

from secureconnect.client import Client, Event
from secureconnect.testing.line import Line
from secureconnect.testing.process import ServerProcess


class World:
    """A server with the accounts ada and ben, and a line to it for ada."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.server = ServerProcess(folder / "data", settings={"SHUTDOWN_GRACE_S": "1", **settings})
        self.server.start()
        self.line = Line(self.server.port)
        self.ada = self._register("ada")
        self.ben = self._register("ben")

    def close(self) -> None:
        self.line.close()
        self.server.kill()

    def _register(self, name: str) -> str:
        fields: dict[str, object] = {
            "email": f"{name}@example.org",
            "username": name,
            "password": "long enough",
            "display_name": name,
        }
        return str(self._post("/v1/auth/register", fields)["access_token"])

    def _post(self, path: str, body: dict[str, object], token: str = "") -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = httpx.post(f"{self.server.url}{path}", json=body, headers=headers, timeout=10)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json()["data"])

    async def group(self) -> str:
        """Ben makes a group with ada; the conversation's id."""
        wish: dict[str, object] = {"type": "group", "title": "G", "participant_usernames": ["ada"], "is_e2ee_enabled": False}
        made = await anyio.to_thread.run_sync(self._post, "/v1/conversations", wish, self.ben)
        return str(made["conversation_id"])

    async def says(self, conversation: str, *texts: str) -> None:
        """Ben writes these, one after the other."""
        for text in texts:
            body: dict[str, object] = {"conversation_id": conversation, "content": text}
            await anyio.to_thread.run_sync(self._post, "/v1/messages", body, self.ben)

    async def restart(self) -> None:
        await anyio.to_thread.run_sync(self.server.kill)
        await anyio.to_thread.run_sync(self.server.start)


class MakeWorld(Protocol):
    """`make_world(REPLAY_ENTRIES_MAX="50")` starts one."""

    def __call__(self, **settings: str) -> World: ...


class Program:
    """Reads the events of `client`; told of a gap in a conversation, it reads the log. `texts`: by conversation."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.texts: dict[str, list[str]] = {}
        self.gaps: list[Event] = []
        self.repeated: list[object] = []
        self._seen: set[object] = set()

    async def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Read until this event was read."""
        async for event in self.client.events():
            await self._read(event)
            if wanted(event):
                return event
        raise AssertionError("the client ended")

    async def until_said(self, conversation: str, text: str) -> list[str]:
        """Read until this message was read; all texts of its conversation so far."""
        while text not in self.texts.get(conversation, ()):
            await self.until(lambda event: True)
        return self.texts[conversation]

    async def _read(self, event: Event) -> None:
        if event.name == "gap":
            self.gaps.append(event)
            if event.channel.startswith("conversation:"):
                await self._read_log(event.channel.removeprefix("conversation:"), event.data["seen"] or 0, event.data["after"])
        elif event.name == "message.created":
            self._note(event.data)

    async def _read_log(self, conversation: str, after: int, to: int) -> None:
        while after < to:
            page = await self.client.call("conversations.log", {"conversation_id": conversation, "after": after, "limit": 100})
            for entry in page["entries"]:
                after = entry["sequence"]
                if entry["event"] == "message.created" and after <= to:
                    self._note(entry["data"])

    def _note(self, message: Mapping[str, Any]) -> None:
        if message["message_id"] in self._seen:
            self.repeated.append(message["content"])
        self._seen.add(message["message_id"])
        self.texts.setdefault(message["conversation_id"], []).append(message["content"])
