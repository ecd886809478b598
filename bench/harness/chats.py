"""The whole chats among the contenders: ours and the same written the usual way, to be asked over sockets and HTTP alike."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from bench.harness.contenders import PeerServer, Server, python_peer
from bench.harness.load import Request
from bench.harness.plan import CONTENT, ID, Plan, Topology, chat

STARLETTE, STARLETTE_H11, AIOHTTP = "starlette + aiosqlite", "starlette + aiosqlite (h11)", "aiohttp + aiosqlite"
SECRET = b"bench-secret-of-at-least-32-bytes!!"  # as in peers/chat_store.py


class Chat(Server, Protocol):
    """A server that has users and conversations."""

    def token(self, n: int = 0) -> str:
        """Of user n; there are a few users, so numbers wrap."""
        ...

    def conversation(self, n: int) -> str:
        """The id of conversation n, made when it is first asked for; every user is in it."""
        ...


@dataclass(frozen=True, slots=True)
class ChatPeerServer(PeerServer):
    folder: Path

    def plan(self, topology: Topology) -> Plan:
        return chat(topology, token=self.token, conversation=self.conversation)

    def token(self, n: int = 0) -> str:
        return _token(n % 10)

    def conversation(self, n: int) -> str:
        return f"00000000-0000-4000-8000-{n:012}"

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ChatPeer:
    """One of the peers/chat_*.py, each start on an empty database."""

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    packages: str = ""

    def start(self, *, sockets: int = 1000) -> ChatPeerServer:
        folder = Path(tempfile.mkdtemp(prefix="bench-peer-"))
        peer = python_peer(self.name, self.script, str(folder), *self.arguments, packages=self.packages)
        try:
            up = peer.start(sockets=sockets)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return ChatPeerServer(up.process, up.dialect, folder)

    def version(self) -> str:
        return python_peer(self.name, self.script, packages=self.packages).version()


def chat_peers() -> list[ChatPeer]:
    usual = "starlette uvicorn aiosqlite pyjwt"
    return [
        ChatPeer(STARLETTE, "chat_starlette.py", ("httptools", "uvloop"), f"{usual} httptools uvloop"),
        ChatPeer(STARLETTE_H11, "chat_starlette.py", ("h11", "asyncio"), f"{usual} h11"),
        ChatPeer(AIOHTTP, "chat_aiohttp.py", (), "aiohttp aiosqlite pyjwt uvloop"),
    ]


def requests(server: Chat) -> list[Request]:
    """`history` of conversation 0 (50 messages), `post` into conversation 1, `poll` and `wake` around conversation 2."""
    token, (old, new, live) = server.token(), [server.conversation(n) for n in range(3)]
    channel = f"conversation:{live}"
    return [
        Request("history", "GET", f"/v1/messages?conversation_id={old}&limit=50", token),
        Request("seed", "POST", "/v1/messages", token, _body(old)),
        Request("post", "POST", "/v1/messages", token, _body(new)),
        Request("wake", "POST", "/v1/messages", token, _body(live)),
        Request("poll", "GET", f"/v1/realtime/poll?channels={channel}&after={channel}:{ID}&wait_s=20", token),
        Request("echo", "POST", "/echo", token, '{"channel":"c","text":"hello there","n":7}'),
    ]


def _body(conversation: str) -> str:
    return f'{{"conversation_id":"{conversation}","content":"{CONTENT}"}}'


def _token(n: int) -> str:
    """A JWT (HS256) as the peers make them, good for a day."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": f"user-{n}", "exp": int(time.time()) + 86_400}
    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(msgspec.json.encode(claims))
    return (head + b"." + part(hmac.new(SECRET, head, hashlib.sha256).digest())).decode()
