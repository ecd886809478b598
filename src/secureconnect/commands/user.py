"""`secureconnect user`: accounts, straight in the data folder, whether a server runs on it or not."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING

from cyclopts import App

from secureconnect.commands.terminal import DONE, Source, buildable, say, say_json
from secureconnect.errors import BadRequest

if TYPE_CHECKING:
    from secureconnect.config import Settings
    from secureconnect.features.auth.model import Login, User

app = App(name="user", help="Add a user, or give one an access token.")
GENERATED_PASSWORD_BYTES = 12
"""Of a password that nobody chose: 96 bits, 16 characters."""
PASSWORD_CHARS_MAX = 4096


@app.command
def add(
    *,
    email: str,
    username: str,
    display_name: str = "",
    password: str | None = None,
    password_stdin: bool = False,
    source: Source | None = None,
    json: bool = False,
) -> int:
    """Add a user. Without a password one is made and printed.

    Parameters
    ----------
    email
        E-mail address; it must be new.
    username
        User name; it must be new.
    display_name
        What others see; the user name if absent.
    password
        The password. Other users of this machine can read it while the command runs: prefer --password-stdin.
    password_stdin
        Read the password from the first line of standard input.
    json
        As JSON.
    """
    import trio

    if password is not None and password_stdin:
        raise BadRequest("--password and --password-stdin exclude each other")
    if password_stdin:
        password = sys.stdin.readline(PASSWORD_CHARS_MAX).rstrip("\r\n")
    made = secrets.token_urlsafe(GENERATED_PASSWORD_BYTES) if password is None else None
    chosen = made if made is not None else password
    assert chosen is not None
    user = trio.run(_add, buildable(source), email, username, display_name or username, chosen)
    if json:
        shown: dict[str, str] = {"user_id": user.id, "email": user.email, "username": user.username}
        say_json(shown | ({"password": made} if made is not None else {}))
    else:
        say(f"added {user.username} ({user.email}), id {user.id}" + (f", password {made}" if made is not None else ""))
    return DONE


async def _add(settings: Settings, email: str, username: str, display_name: str, password: str) -> User:
    from secureconnect.app import open_auth

    async with open_auth(settings) as auth:
        return await auth.add_user(email=email, username=username, display_name=display_name, password=password)


@app.command
def token(name: str, *, source: Source | None = None, json: bool = False) -> int:
    """Print an access token for a user, as if they had logged in.

    Parameters
    ----------
    name
        Their user name or e-mail address.
    json
        As JSON, with the refresh token and the end of its life.
    """
    import trio

    login = trio.run(_issue, buildable(source), name)
    if json:
        say_json({
            "user_id": login.user.id,
            "session_id": login.session,
            "access_token": login.access_token,
            "refresh_token": login.refresh_token,
            "expires_at": login.expires_at_s,
        })  # fmt: skip
    else:
        say(login.access_token)
    return DONE


async def _issue(settings: Settings, name: str) -> Login:
    from secureconnect.app import open_auth

    async with open_auth(settings, is_new=False) as auth:
        return await auth.issue_for(name)
