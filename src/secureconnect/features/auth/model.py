"""Who somebody is: users, login sessions, tokens."""

from __future__ import annotations

from dataclasses import dataclass

from secureconnect.ids import SessionId, UserId


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose access token was verified. `expires_at_s`: Unix seconds, the end of that token's life."""

    user: UserId
    session: SessionId
    username: str
    email: str
    role: str
    expires_at_s: int
