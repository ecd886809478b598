"""Our own server as the benches see it: a process on a fresh data folder, users, conversations, tokens.

Hashing a password costs 130 ms, so few users are registered and each holds many sockets. Conversations are opened by the first
user with the others as members (a group has at most 1,000), without end-to-end encryption.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, RemoteDisconnected
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.harness.cache import Missing
from bench.harness.contenders import OURS
from bench.harness.plan import Plan, Topology, chat
from bench.harness.processes import SERVER_CORE, START_DEADLINE_S, Process, free_port

T = TypeVar("T")

USERS = 10
PROGRAM = Path(sys.executable).parent / "secureconnect"
SETTINGS = {
    "SECURECONNECT_RATE_LIMITS": "off",
    "SECURECONNECT_ACCESS_TOKEN_S": "14400",  # longer than any bench: sockets are to stay
}


class Member(msgspec.Struct, frozen=True):
    user_id: str


class Login(msgspec.Struct, frozen=True):
    access_token: str
    user: Member


class Conversation(msgspec.Struct, frozen=True):
    conversation_id: str


class Stored(msgspec.Struct, frozen=True):
    sequence: int


class Envelope(msgspec.Struct, frozen=True):
    success: bool
    data: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(slots=True)
class OurServer:
    """Up, with users who all share every conversation that is asked for."""

    process: Process
    folder: Path
    users: list[Login] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    _link: HTTPConnection | None = None

    def stop(self) -> None:
        if self._link is not None:
            self._link.close()
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def plan(self, topology: Topology) -> Plan:
        self.open_conversations(topology.rooms)
        return chat(topology, token=self.token, conversation=self.conversation)

    def token(self, n: int = 0) -> str:
        self.register_users()
        return self.users[n % len(self.users)].access_token

    def conversation(self, n: int) -> str:
        self.open_conversations(n + 1)
        return self.conversations[n]

    def register_users(self, count: int = USERS) -> None:
        for n in range(len(self.users), count):
            person = {
                "email": f"u{n}@bench.test",
                "username": f"bench_user_{n}",
                "password": "correct horse 7!",
                "display_name": f"User {n}",
            }
            self.users.append(self.call("POST", "/v1/auth/register", person, Login, token=""))

    def open_conversations(self, count: int) -> None:
        """So that there are at least `count`, each with all users in it."""
        self.register_users()
        others = [login.user.user_id for login in self.users[1:]]
        for n in range(len(self.conversations), count):
            wanted = {"title": f"Room {n}", "type": "group", "participant_ids": others, "is_e2ee_enabled": False}
            self.conversations.append(self.call("POST", "/v1/conversations", wanted, Conversation).conversation_id)

    def say(self, room: int, count: int) -> int:
        """Posts some messages into a conversation; the sequence of the last."""
        wanted = {"conversation_id": self.conversation(room), "content": "hello there"}
        return [self.call("POST", "/v1/messages", wanted, Stored).sequence for _ in range(count)][-1]

    def call(self, method: str, path: str, body: object, answer: type[T], *, token: str | None = None) -> T:
        """One HTTP request; the `data` of its answer. Raises OSError when it is refused."""
        if self._link is None:
            self._link = HTTPConnection("127.0.0.1", self.process.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        if token != "":
            headers["Authorization"] = f"Bearer {token or self.users[0].access_token}"
        content = msgspec.json.encode(body) if body is not None else None
        try:
            self._link.request(method, path, content, headers)
            response = self._link.getresponse()
        except (BrokenPipeError, ConnectionResetError, RemoteDisconnected):  # idle for over a minute: the server has closed it
            self._link.close()
            self._link.request(method, path, content, headers)
            response = self._link.getresponse()
        content = response.read()
        if response.status >= 300:
            raise OSError(f"{method} {path}: {response.status} {content[:300].decode(errors='replace')}")
        return msgspec.json.decode(msgspec.json.decode(content, type=Envelope).data, type=answer)


@dataclass(frozen=True, slots=True)
class Ours:
    """The contender. `settings`: more of SECURECONNECT_…, by their whole names."""

    settings: tuple[tuple[str, str], ...] = ()
    name: str = OURS
    core: int = SERVER_CORE

    def start(self, *, sockets: int = 1000) -> OurServer:
        server = self.launch(sockets=sockets)
        try:
            server.register_users()
        except OSError:
            server.stop()
            raise
        return server

    def launch(self, *, sockets: int) -> OurServer:
        """Ready, without users. Raises: Missing."""
        if not PROGRAM.exists():
            raise Missing(self.name, "pip install -e .")
        folder = Path(tempfile.mkdtemp(prefix="bench-ours-"))
        port, log = free_port(), folder / "log"
        env = {
            **SETTINGS,
            "SECURECONNECT_DATA_DIR": str(folder / "data"),
            "SECURECONNECT_SOCKETS_MAX": str(sockets + 200),
            **dict(self.settings),
        }
        process = Process([str(PROGRAM), "serve", "--port", str(port)], port=port, env=env, log=log, core=self.core)
        server = OurServer(process, folder)
        try:
            _wait_ready(process, log)
        except OSError as error:
            told = (log.read_text(errors="replace").strip() or "nothing said").splitlines()[-1][:300]
            server.stop()
            raise Missing(self.name, "secureconnect serve --port 0", f"{error}: {told}") from error
        return server

    def version(self) -> str:
        return version("secureconnect")


def _wait_ready(process: Process, log: Path) -> None:
    """Until it has said `ready url=…`: stores open, listener accepting."""
    while time.monotonic() < process.started + START_DEADLINE_S:
        if "ready url=" in log.read_text(errors="replace"):
            return
        if not process.alive():
            raise OSError("ended before it was ready")
        time.sleep(0.01)
    raise OSError(f"not ready after {START_DEADLINE_S:.0f} s")
