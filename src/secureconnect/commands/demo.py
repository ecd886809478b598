"""`serve --dev`: two people who already talk to each other, and commands to try that work when pasted.

Their passwords are made once for each data folder and kept there (mode 0600), never the same on two machines: a folder that
began as a demo may end up on the internet.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import trio

from secureconnect.app import open_auth
from secureconnect.commands.terminal import complain, say
from secureconnect.config import Settings
from secureconnect.errors import Conflict
from secureconnect.features.auth.model import Login

NAMES = (("ada", "Ada"), ("ben", "Ben"))
PASSWORD_BYTES = 9
"""72 bits, 12 characters."""
CALL_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Person:
    """A demo user who can log in. `password` None: the file that kept it is gone."""

    login: Login
    password: str | None = field(repr=False)


async def people(settings: Settings) -> tuple[Person, ...]:
    """Add the demo users where they are missing, and give each a fresh login. Raises: what opening the stores raises."""
    path = settings.data_dir / "demo.json"
    kept = _kept(path)
    passwords = kept or _make(path)
    found = []
    async with open_auth(settings) as auth:
        for name, display_name in NAMES:
            password: str | None = passwords[name]
            try:
                await auth.add_user(
                    email=f"{name}@example.org", username=name, display_name=display_name, password=passwords[name]
                )  # fmt: skip
            except Conflict:  # here since an earlier start
                password = password if kept else None
            found.append(Person(await auth.issue_for(name), password))
    return tuple(found)


def _kept(path: Path) -> dict[str, str] | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(kept[name]) for name, _ in NAMES}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _make(path: Path) -> dict[str, str]:
    made = {name: secrets.token_urlsafe(PASSWORD_BYTES) for name, _ in NAMES}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(made, stream)
    return made


async def introduce(url: str, found: tuple[Person, ...]) -> None:
    """Open the conversation of the two over the server's own front door, and print what to try."""
    ada, ben = found
    try:
        conversation = await trio.to_thread.run_sync(_open_conversation, url, ada, ben, abandon_on_cancel=True)
    except (OSError, ValueError, KeyError) as error:  # HTTPError is an OSError, a wrong answer a ValueError or KeyError
        complain(f"--dev: the demo conversation could not be opened: {error}")
        return
    say(snippets(url, ada, ben, conversation))


def _open_conversation(url: str, ada: Person, ben: Person) -> str:
    wish = {"type": "direct", "participant_ids": [ada.login.user.id, ben.login.user.id], "is_e2ee_enabled": False}
    request = urllib.request.Request(
        f"{url}/v1/conversations",
        data=json.dumps(wish).encode(),
        headers={"Authorization": f"Bearer {ada.login.access_token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=CALL_DEADLINE_S) as answer:
        return str(json.load(answer)["data"]["conversation_id"])


def snippets(url: str, ada: Person, ben: Person, conversation: str) -> str:
    """What a newcomer may paste: a page, a message by curl, and a socket that shows it arrive."""
    socket = url.replace("http", "ws", 1) + "/v1/ws"
    message = json.dumps({"conversation_id": conversation, "content": "Hello, Ben!", "client_message_id": secrets.token_hex(8)})
    listen = (
        "import json, sys; from contextlib import ExitStack; from websockets.sync.client import connect; "
        "s = ExitStack().enter_context("
        'connect(sys.argv[1], additional_headers={"Authorization": "Bearer " + sys.argv[2]})); '
        's.send(json.dumps({"id": 1, "method": "subscribe", "params": {"channels": "all"}})); '
        "[print(frame, flush=True) for frame in s]"
    )
    who = "\n".join(_who(person) for person in (ada, ben))
    return (
        f"\nOpen {url}/ in two windows and log in:\n{who}\n\n"
        f"Listen as Ben (every event, until Ctrl-C):\n"
        f"{shlex.join([sys.executable, '-c', listen, socket, ben.login.access_token])}\n\n"
        f"Send as Ada, from another terminal:\n"
        f"curl -s {url}/v1/messages -H 'Authorization: Bearer {ada.login.access_token}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(message)}\n"
    )


def _who(person: Person) -> str:
    user = person.login.user
    return f"  {user.display_name}: e-mail {user.email}, password {person.password or '(kept in a file that is gone)'}"
