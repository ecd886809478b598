"""Accounts and login sessions: who may come in, how long, and how one is put out again.

What an answer tells a stranger: a login with an unknown e-mail and one with a wrong password do the same work and read the same;
a registration says which of e-mail and user name is taken, because it must.

How a session ends, also while the store is away, is said in endings.py. New sessions and new tokens are refused meanwhile, for a
session that is continued on two sides cannot be told from a stolen one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from secureconnect.errors import BadRequest, Forbidden, NotAuthenticated, NotFound, Unavailable
from secureconnect.features.auth import fields
from secureconnect.features.auth.endings import Keep, SessionEndings
from secureconnect.features.auth.model import (
    UNKNOWN_DEVICE,
    Ack,
    Device,
    Exchange,
    Identity,
    Login,
    LoginSession,
    Registration,
    Rotation,
    SystemRole,
    User,
)
from secureconnect.features.auth.passwords import Passwords
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.store import SessionStore, UsernameTaken, UserStore
from secureconnect.features.auth.tokens import RefreshToken, Tokens
from secureconnect.features.lockout.model import Guard
from secureconnect.ids import SessionId, UserId, is_uuid
from secureconnect.observe import stage
from secureconnect.ports import Clock, Ids, Rng

REFRESH_TOKEN_S: Final = 2_592_000
SESSIONS_PER_USER_MAX: Final = 10
REPEAT_US: Final = 60_000_000
"""How long a refresh whose answer was lost may be repeated (interface.md §9)."""
USERNAME_TRIES: Final = 5
PURGE_AFTER_US: Final = 30 * 86_400_000_000
"""Ended sessions are kept this long for whoever asks why; their revocations have long expired."""
PURGE_ROWS_MAX: Final = 500

_log = structlog.get_logger("secureconnect.auth")


class Auth:
    """One per node. `signal` takes a name and data and reaches every node, this one included (`Hub.signal`)."""

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        revocations: RevocationSet,
        *,
        passwords: Passwords,
        tokens: Tokens,
        clock: Clock,
        ids: Ids,
        rng: Rng,
        signal: Callable[[str, bytes], None],
        guard: Guard,
        refresh_token_s: int = REFRESH_TOKEN_S,
        sessions_per_user_max: int = SESSIONS_PER_USER_MAX,
        keep: Keep | None = None,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._tokens = tokens
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._guard = guard
        self.endings = SessionEndings(
            sessions, revocations, clock=clock, access_token_s=tokens.access_token_s, signal=signal, keep=keep
        )
        self._refresh_token_us = refresh_token_s * 1_000_000
        self._sessions_per_user_max = sessions_per_user_max

    def verify(self, token: str) -> Identity:
        """Whose access token this is. Raises: NotAuthenticated (`UNAUTHORIZED`, `TOKEN_EXPIRED`, `TOKEN_REVOKED`)."""
        identity = self._tokens.verify(token)
        self.endings.check(identity)
        return identity

    def check(self, identity: Identity) -> None:
        """Whether a token that was verified before is still good. Raises: NotAuthenticated, as `verify`."""
        self._tokens.check_life(identity)
        self.endings.check(identity)

    async def register(self, registration: Registration, device: Device = UNKNOWN_DEVICE) -> Login:
        """A new account and its first session, both or neither.

        Raises: BadRequest, EmailTaken, UsernameTaken, Overloaded, BackendDown, OutcomeUnknown (log in to find out).
        """
        device, now_us = fields.device(device), self._clock.now_us()
        user, password_hash = await self._new_user(registration, now_us, role="user")
        session, refresh = self._new_session(user, device, now_us)
        user = await self._add(user, password_hash, session, named=registration.username is not None)
        return self._login(user, refresh, now_us)

    async def add_user(
        self, *, email: str, username: str | None, display_name: str, password: str, role: SystemRole = "user"
    ) -> User:
        """An account without a session, for the command line and the demo. Raises: as `register`."""
        registration = Registration(email, password, display_name, username)
        user, password_hash = await self._new_user(registration, self._clock.now_us(), role=role)
        return await self._add(user, password_hash, None, named=username is not None)

    async def login(self, email: str, password: str, device: Device = UNKNOWN_DEVICE, *, origin: str = "") -> Login:
        """A new session. `origin`: whom wrong passwords are counted against, beside the account.

        Raises: NotAuthenticated(`INVALID_CREDENTIALS`), AccountLocked, Forbidden (banned), Overloaded, BackendDown.
        """
        device, typed, email = fields.device(device), fields.presented_password(password), _comparable(email)
        stage.at("lockout")
        await self._guard.check(email, origin)
        if typed is None:  # refused by its length alone, whoever it is
            raise _invalid_credentials()
        stage.at("sql")
        known = await self._users.credentials(email)
        known_hash = None if known is None else known.password_hash
        if not await self._passwords.matches(typed, known_hash) or known is None or known.user.status == "deleted":
            await self._guard.failed(email, origin)
            raise _invalid_credentials()
        await self._guard.succeeded(email, origin)
        _refuse_banned(known.user)
        if self._passwords.is_outdated(known.password_hash):
            fresh = await self._passwords.hash(typed)
            stage.at("sql")
            await self._users.replace_password_hash(known.user.id, known.password_hash, fresh)
        return await self._begin(known.user, device)

    async def issue_for(self, who: str, device: Device = UNKNOWN_DEVICE) -> Login:
        """A new session of the user with this e-mail, id or user name without asking for a password, for the command line.

        Raises: NotFound, Forbidden (banned), BackendDown, OutcomeUnknown.
        """
        user = await self.find(who)
        if user.status == "deleted":
            raise NotFound(f"The account of {who} was deleted")
        _refuse_banned(user)
        return await self._begin(user, fields.device(device))

    async def _begin(self, user: User, device: Device) -> Login:
        """Beyond the limit of sessions those not used for longest end."""
        now_us = self._clock.now_us()
        session, refresh = self._new_session(user, device, now_us)
        surplus = self.endings.ending("replaced", now_us)
        stage.at("sql")
        for ended in await self._sessions.begin(session, keep=self._sessions_per_user_max, surplus=surplus):
            self.endings.enforce(ended, user.id, surplus)
        return self._login(user, refresh, now_us)

    async def refresh(self, refresh_token: str, *, client_refresh_id: str | None = None) -> Login:
        """New tokens for the present refresh token, which is replaced; an older one ends the session.

        The same token with the same `client_refresh_id` within 60 s gets the same tokens, unless the new one was used already.
        Raises: NotAuthenticated (any cause, one sentence), Forbidden (banned), BackendDown, OutcomeUnknown (repeat it).
        """
        repeatable = fields.client_refresh_id(client_refresh_id)
        present = self._tokens.read_refresh(refresh_token)
        if present is None:
            raise _invalid_refresh()
        stage.at("sql")
        session = await self._sessions.session(present.session)
        user = None if session is None else await self._users.user(session.user)
        if session is None or user is None or user.status == "deleted":
            raise _invalid_refresh()
        _refuse_banned(user)
        return await self._exchange(user, session, present, repeatable)

    async def _exchange(self, user: User, session: LoginSession, present: RefreshToken, repeatable: str | None) -> Login:
        following = (
            self._tokens.next_refresh(present, repeatable)
            if repeatable is not None
            else self._tokens.first_refresh(present.session, self._rng.secret(32))
        )
        now_us = self._clock.now_us()
        exchange = Exchange(
            presented=present.hash,
            replacement=following.hash,
            at_us=now_us,
            expires_us=now_us + self._refresh_token_us,
            repeat_after_us=now_us - REPEAT_US,
            reuse=self.endings.ending("reuse", now_us),
        )
        try:
            rotation = await self._sessions.rotate(present.session, exchange)
        except Unavailable as error:
            if not _is_reused(session, present):
                raise
            await self.endings.keep(present.session, user.id, exchange.reuse, because=error)
            rotation = Rotation("reused")
        else:
            if rotation.outcome == "reused":
                self.endings.enforce(present.session, user.id, exchange.reuse)
        if rotation.outcome == "reused":
            _log.warning("refresh_token_reused", session_id=present.session, user_id=user.id)
        if rotation.outcome in ("reused", "gone"):
            raise _invalid_refresh()
        return self._login(user, following, rotation.rotated_us)

    async def logout(self, identity: Identity) -> Ack:
        """End the session of this token. Raises: Unavailable (repeat it): neither the store nor this node could keep it."""
        ack = await self.endings.end(identity.session, identity.user, "logout")
        if ack is None:
            # Another node was faster, or a restored store has forgotten it: this token ends here all the same.
            self.endings.enforce(identity.session, identity.user, self.endings.ending("logout", self._clock.now_us()))
        return ack or "stored"

    async def end_session(self, user: UserId, session: SessionId) -> Ack:
        """End another session of the same user; `accepted` does not say that there is one. Raises: NotFound, and as `logout`."""
        ack = await self.endings.end(session, user, "logout") if is_uuid(session) else None
        if ack is None:
            raise NotFound("There is no such session", details={"field": "session_id"})
        return ack

    async def purge(self) -> int:
        """Forget what ended or expired a month ago, a bounded number at a time; returns how many rows went."""
        return await self._sessions.purge(self._clock.now_us() - PURGE_AFTER_US, limit=PURGE_ROWS_MAX)

    async def profile(self, user: UserId) -> User:
        """Raises: NotFound (erased since the token was made), BackendDown."""
        stage.at("sql")
        found = await self._users.user(user)
        if found is None:
            raise NotFound("There is no such user")
        return found

    async def sessions(self, user: UserId) -> Sequence[LoginSession]:
        """The living ones, the one used last first. Raises: BackendDown."""
        stage.at("sql")
        return await self._sessions.sessions_of(user, now_us=self._clock.now_us())

    async def find(self, who: str) -> User:
        """The account with this e-mail, id or user name. Raises: NotFound, BackendDown."""
        found: User | None
        if "@" in who:
            known = await self._users.credentials(_comparable(who))
            found = None if known is None else known.user
        elif is_uuid(who):
            found = await self._users.user(UserId(who.lower()))
        else:
            found = await self._users.by_username(who)
        if found is None:
            raise NotFound(f"There is no user {who}")
        return found

    async def _new_user(self, registration: Registration, now_us: int, *, role: SystemRole) -> tuple[User, str]:
        email = fields.email(registration.email)
        named = None if registration.username is None else fields.username(registration.username)
        password = fields.password(registration.password)
        display_name = fields.display_name(registration.display_name)
        user = User(
            id=UserId(self._ids.new()),
            email=email,
            username=named or fields.derived_username(display_name),
            display_name=display_name,
            created_us=now_us,
            updated_us=now_us,
            role=role,
        )
        return user, await self._passwords.hash(password)

    async def _add(self, user: User, password_hash: str, first: LoginSession | None, *, named: bool) -> User:
        stage.at("sql")
        base = user.username
        for _ in range(0 if named else USERNAME_TRIES):
            try:
                await self._users.add(user, password_hash, first)
            except UsernameTaken:
                user = replace(user, username=f"{base}.{int(self._rng.random() * 1_000_000):06d}")
            else:
                return user
        await self._users.add(user, password_hash, first)
        return user

    def _new_session(self, user: User, device: Device, now_us: int) -> tuple[LoginSession, RefreshToken]:
        refresh = self._tokens.first_refresh(SessionId(self._ids.new()), self._rng.secret(32))
        session = LoginSession(
            id=refresh.session,
            user=user.id,
            refresh_hash=refresh.hash,
            created_us=now_us,
            rotated_us=now_us,
            last_used_us=now_us,
            expires_us=now_us + self._refresh_token_us,
            device=device,
        )
        return session, refresh

    def _login(self, user: User, refresh: RefreshToken, issued_us: int) -> Login:
        expires_at_s = issued_us // 1_000_000 + self._tokens.access_token_s
        return Login(
            user=user,
            session=refresh.session,
            access_token=self._tokens.access(user, refresh, issued_us),
            refresh_token=refresh.text,
            expires_at_s=expires_at_s,
            expires_in_s=max(0, expires_at_s - self._clock.now_us() // 1_000_000),
        )


def _comparable(email: str) -> str:
    """An address as it would be stored, or a text that no account has."""
    try:
        return fields.email(email)
    except BadRequest:
        return ""


def _is_reused(session: LoginSession, presented: RefreshToken) -> bool:
    """By what was read of the session just before: an older token came back, whatever the store would say of it now."""
    return session.ended_us is None and presented.hash not in (session.refresh_hash, session.previous_hash)


def _refuse_banned(user: User) -> None:
    if user.status == "banned":
        raise Forbidden("This account is banned")


def _invalid_credentials() -> NotAuthenticated:
    return NotAuthenticated("Invalid email or password", code="INVALID_CREDENTIALS")


def _invalid_refresh() -> NotAuthenticated:
    return NotAuthenticated("Invalid or expired refresh token")
