"""What accounts, login sessions and revocations need kept: three protocols, one contract suite over every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from secureconnect.errors import Conflict
from secureconnect.features.auth.model import Credentials, Ending, Exchange, LoginSession, Revocation, Rotation, User
from secureconnect.ids import SessionId, UserId


class EmailTaken(Conflict):
    """email already registered"""

    code: ClassVar[str] = "EMAIL_EXISTS"

    def __init__(self) -> None:
        super().__init__(details={"field": "email"})


class UsernameTaken(Conflict):
    """username already taken"""

    code: ClassVar[str] = "USERNAME_EXISTS"

    def __init__(self) -> None:
        super().__init__(details={"field": "username"})


class UserStore(Protocol):
    """Accounts. E-mails and user names are each unique, compared exactly. Every method raises BackendDown, DeadlineExceeded."""

    async def add(self, user: User, password_hash: str, first: LoginSession | None = None) -> None:
        """Store a new user and, in the same step, the session that the registration opens.

        Raises: EmailTaken before UsernameTaken (nothing stored), OutcomeUnknown (both may be stored).
        """
        ...

    async def user(self, user: UserId) -> User | None: ...

    async def by_username(self, username: str) -> User | None: ...

    async def credentials(self, email: str) -> Credentials | None:
        """The user of a (lower-cased) e-mail address, with the password's hash."""
        ...

    async def replace_password_hash(self, user: UserId, old: str, new: str) -> bool:
        """Compare and set: False, and nothing changed, when the hash is no longer `old`."""
        ...


class SessionStore(Protocol):
    """Login sessions. What ends one writes its revocation in the same step, so that no node can miss it.

    Every method raises BackendDown, DeadlineExceeded; those that write OutcomeUnknown too. Cancellation: a write may be done.
    """

    async def begin(self, session: LoginSession, *, keep: int, surplus: Ending) -> Sequence[SessionId]:
        """Add a session; the user has at most `keep` living ones afterwards, this one included.

        Those that were not used for longest are ended by `surplus`; their ids are the result. One atomic step.
        """
        ...

    async def rotate(self, session: SessionId, exchange: Exchange) -> Rotation:
        """Compare and set of the refresh token, one atomic step: of any number of calls with the same token one is `rotated`.

        `rotated`: the presented token was the present one. `repeated`: it was the one before, `replacement` is the present one
        and took its place after `repeat_after_us`. `reused`: the session lived, the token is neither; the session has been ended
        by `reuse`. `gone`: no such session, ended, or expired at `at_us`; nothing changed.
        """
        ...

    async def end(self, session: SessionId, user: UserId, ending: Ending) -> bool:
        """End a living session of `user`. False, and nothing changed, when there is none."""
        ...

    async def session(self, session: SessionId) -> LoginSession | None: ...

    async def sessions_of(self, user: UserId, *, now_us: int) -> Sequence[LoginSession]:
        """The user's living sessions, the one used last first."""
        ...

    async def purge(self, before_us: int, *, limit: int) -> int:
        """Forget sessions that ended or expired before `before_us`, and revocations whose `until_us` lies before it.

        At most `limit` of each; returns how many rows went.
        """
        ...


class RevocationStore(Protocol):
    """The revocations that the session store wrote, as one growing list."""

    async def since(self, number: int, *, live_us: int, limit: int) -> Sequence[Revocation]:
        """At most `limit` with a number above `number`, ascending, of those whose `until_us` lies after `live_us`.

        Ordering: a lower number may become visible after a higher one when several nodes write; who follows must overlap.
        Raises: BackendDown, DeadlineExceeded.
        """
        ...
