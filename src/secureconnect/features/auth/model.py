"""Who somebody is: users, login sessions, tokens.

A *login session* is one device's login, the family of all its tokens: refreshing replaces the refresh token inside the session,
ending the session ends every token that came from it. Only `Registration` and `Login`, question and answer themselves, hold a
password or a token in clear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from secureconnect.ids import SessionId, UserId

EndReason = Literal["logout", "reuse", "banned", "replaced"]
"""Why a session ended: its user said so · an old refresh token came back · the user was banned · too many sessions."""
Ack = Literal["stored", "accepted"]
"""How an ending is kept: in the store · on this node's disk, in force here, to be stored when the store is back."""
SystemRole = Literal["user", "admin"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose access token was verified. `expires_at_s`: Unix seconds, the end of that token's life."""

    user: UserId
    session: SessionId
    username: str
    email: str
    role: str
    expires_at_s: int


@dataclass(frozen=True, slots=True)
class User:
    """An account. `status` is `online`, `offline`, `busy`, `away`, or ends the account: `banned`, `deleted`."""

    id: UserId
    email: str
    username: str
    display_name: str
    created_us: int
    updated_us: int
    avatar_url: str | None = None
    status: str = "offline"
    role: str = "user"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with what a password is checked against (an encoded Argon2 hash)."""

    user: User
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody asks for who registers, as typed. `username` None: one is made from the display name."""

    email: str
    password: str = field(repr=False)
    display_name: str
    username: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """Where a login comes from, as far as it said so; shown in the list of sessions. `address`: without the port."""

    device_id: str | None = None
    user_agent: str | None = None
    address: str | None = None


UNKNOWN_DEVICE = Device()


@dataclass(frozen=True, slots=True)
class LoginSession:
    """One device's login as it is kept. The hashes are SHA-256 of a whole refresh token; `previous_hash` is the one before.

    `rotated_us`: when `refresh_hash` took its place. `ended_us` None: it lives, until `expires_us`.
    """

    id: SessionId
    user: UserId
    refresh_hash: bytes = field(repr=False)
    created_us: int
    rotated_us: int
    last_used_us: int
    expires_us: int
    device: Device = UNKNOWN_DEVICE
    previous_hash: bytes | None = field(default=None, repr=False)
    ended_us: int | None = None
    end_reason: EndReason | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ends. `until_us`: when the last access token that it gave out has expired by itself."""

    reason: EndReason
    at_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """One refresh: the token that was presented for the token that replaces it, both hashed.

    `repeat_after_us`: a rotation later than this may be answered again to who lost the first answer.
    `reuse`: how the session ends if the token was replaced before.
    """

    presented: bytes = field(repr=False)
    replacement: bytes = field(repr=False)
    at_us: int
    expires_us: int
    repeat_after_us: int
    reuse: Ending


Outcome = Literal["rotated", "repeated", "reused", "gone"]
"""Of an exchange: replaced now · replaced by this very token just before · an old token, so the session has just been ended ·
no such session, or it had ended or expired."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of an exchange. `rotated_us`: when the present token took its place (of `rotated` and `repeated`)."""

    outcome: Outcome
    rotated_us: int = 0


@dataclass(frozen=True, slots=True)
class Revocation:
    """A session whose tokens are refused everywhere until `until_us`. `number` grows with every revocation stored."""

    number: int
    session: SessionId
    user: UserId
    reason: EndReason
    at_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Login:
    """The answer to a login, a registration, a refresh. Times in Unix seconds; `expires_in_s` counts from now."""

    user: User
    session: SessionId
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at_s: int
    expires_in_s: int


SETTLE_US: Final = 10_000_000
"""A store call ends within 5 s (failure-policy.md §1); twice that after a number was seen no lower one can still appear."""


class Overlap:
    """From which number on to read a growing list of rows again, where a lower number may become visible after a higher one."""

    def __init__(self, now_us: int) -> None:
        self._seen = 0
        self._candidate, self._candidate_us = 0, now_us
        self._settled = 0  # numbers up to here were seen at least SETTLE_US ago: nothing can still appear below

    def begin(self, now_us: int) -> int:
        """The number above which a look that begins now reads. Moves to what was seen when the candidate was chosen."""
        if not 0 <= now_us - self._candidate_us < SETTLE_US:
            if now_us > self._candidate_us:  # else the clock jumped back, and nobody knows how long it has been
                self._settled = self._candidate
            self._candidate, self._candidate_us = self._seen, now_us
        return self._settled

    def saw(self, number: int) -> None:
        self._seen = max(self._seen, number)
