"""`/v1/auth`: register, log in, refresh, log out, who am I, my sessions (contract.md §2.3, interface.md §9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from secureconnect.errors import NotAuthenticated
from secureconnect.features.auth.model import Ack, Device, Login, LoginSession, Registration, User
from secureconnect.features.auth.service import Auth
from secureconnect.features.auth.store import EmailTaken, UsernameTaken
from secureconnect.ids import SessionId
from secureconnect.server.endpoints import Context, Endpoint, NoParams
from secureconnect.server.origins import subscriber
from secureconnect.server.wire import rfc3339

_FULL_NAME: Final[Mapping[str, str]] = {"full_name": "display_name"}
"""What the original's older description calls it."""


class Secretive(msgspec.Struct):
    """Parameters with a secret among them: their repr, which may reach a log, shows none."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class RegisterParams(Secretive):
    email: str
    password: str
    display_name: str
    username: str | None = None
    device_id: str | None = None


class LoginParams(Secretive):
    email: str
    password: str
    device_id: str | None = None


class RefreshParams(Secretive):
    refresh_token: str
    client_refresh_id: str | None = None


class SessionParams(msgspec.Struct):
    session_id: str


class UserObject(msgspec.Struct, kw_only=True):
    """A user as he sees himself."""

    user_id: str
    email: str
    username: str
    display_name: str
    avatar_url: str | UnsetType = UNSET
    status: str
    created_at: str


class ProfileObject(UserObject, kw_only=True):
    """`role` is read from the store, not from the token."""

    role: str
    updated_at: str


class LoginObject(msgspec.Struct, kw_only=True):
    """`expires_in` (seconds) and `expires_at` are the access token's."""

    user: UserObject
    access_token: str
    refresh_token: str
    session_id: str
    expires_in: int
    expires_at: str
    token_type: str = "Bearer"


class SessionObject(msgspec.Struct, kw_only=True):
    """`current`: the one that asks."""

    session_id: str
    current: bool
    created_at: str
    last_used_at: str
    expires_at: str
    device_id: str | UnsetType = UNSET
    user_agent: str | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET


class SessionList(msgspec.Struct):
    sessions: list[SessionObject]


class Ended(msgspec.Struct):
    """`ack` is there when the database is away: `accepted` says that it holds on this node, survives its restart, and is stored
    later; other nodes know it as soon as they can be reached."""

    message: str
    ack: str | UnsetType = UNSET


def endpoints(auth: Auth) -> list[Endpoint]:
    routes = AuthRoutes(auth)
    return [
        Endpoint(
            name="auth.register",
            method="POST",
            path="/v1/auth/register",
            params=RegisterParams,
            call=routes.register,
            result=LoginObject,
            errors=(EmailTaken, UsernameTaken),
            permission="public",
            rate="register",
            status=201,
            aliases=_FULL_NAME,
            features=("login", "rate_limits"),
            summary="Create an account and log in. Without a username one is made from the display name.",
        ),
        Endpoint(
            name="auth.login",
            method="POST",
            path="/v1/auth/login",
            params=LoginParams,
            call=routes.login,
            result=LoginObject,
            errors=(NotAuthenticated,),
            permission="public",
            rate="login",
            features=("login", "lockout", "rate_limits"),
            summary="Log in with e-mail and password.",
        ),
        Endpoint(
            name="auth.refresh",
            method="POST",
            path="/v1/auth/refresh",
            params=RefreshParams,
            call=routes.refresh,
            result=LoginObject,
            errors=(NotAuthenticated,),
            permission="public",
            rate="refresh",
            features=("refresh",),
            summary="Exchange the refresh token. A client_refresh_id makes repeating it safe for 60 s.",
        ),
        Endpoint(
            name="auth.logout",
            method="POST",
            path="/v1/auth/logout",
            params=NoParams,
            call=routes.logout,
            result=Ended,
            rate="account",
            features=("login",),
            summary="End the session of this token; its sockets are closed.",
        ),
        Endpoint(
            name="auth.profile",
            method="GET",
            path="/v1/auth/profile",
            params=NoParams,
            call=routes.profile,
            result=ProfileObject,
            rate="account",
            summary="The logged-in user.",
        ),
        Endpoint(
            name="auth.sessions",
            method="GET",
            path="/v1/auth/sessions",
            params=NoParams,
            call=routes.sessions,
            result=SessionList,
            rate="account",
            features=("login",),
            summary="The user's living login sessions, the one used last first.",
        ),
        Endpoint(
            name="auth.session_end",
            method="DELETE",
            path="/v1/auth/sessions/:session_id",
            params=SessionParams,
            call=routes.session_end,
            result=Ended,
            rate="account",
            features=("login",),
            summary="End one of the user's login sessions.",
        ),
    ]


class AuthRoutes:
    """From params to the service and back to what clients read."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def register(self, context: Context, params: RegisterParams) -> LoginObject:
        registration = Registration(params.email, params.password, params.display_name, params.username or None)
        return _login(await self._auth.register(registration, _device(context, params.device_id)))

    async def login(self, context: Context, params: LoginParams) -> LoginObject:
        device, origin = _device(context, params.device_id), subscriber(context.peer)
        return _login(await self._auth.login(params.email, params.password, device, origin=origin))

    async def refresh(self, context: Context, params: RefreshParams) -> LoginObject:
        return _login(await self._auth.refresh(params.refresh_token, client_refresh_id=params.client_refresh_id))

    async def logout(self, context: Context, params: NoParams) -> Ended:
        return _ended("Logged out successfully", await self._auth.logout(context.me))

    async def profile(self, context: Context, params: NoParams) -> ProfileObject:
        user = await self._auth.profile(context.me.user)
        return ProfileObject(
            user_id=user.id,
            email=user.email,
            username=user.username,
            display_name=user.display_name,
            avatar_url=user.avatar_url or UNSET,
            status=user.status,
            created_at=rfc3339(user.created_us),
            role=user.role,
            updated_at=rfc3339(user.updated_us),
        )

    async def sessions(self, context: Context, params: NoParams) -> SessionList:
        me = context.me
        return SessionList([_session(session, me.session) for session in await self._auth.sessions(me.user)])

    async def session_end(self, context: Context, params: SessionParams) -> Ended:
        return _ended("Session ended", await self._auth.end_session(context.me.user, SessionId(params.session_id)))


def _ended(message: str, ack: Ack) -> Ended:
    return Ended(message, UNSET if ack == "stored" else ack)


def _device(context: Context, device_id: str | None) -> Device:
    address, _, _ = context.peer.rpartition(":")
    return Device(device_id, context.user_agent, address or context.peer)


def _user(user: User) -> UserObject:
    return UserObject(
        user_id=user.id,
        email=user.email,
        username=user.username,
        display_name=user.display_name,
        avatar_url=user.avatar_url or UNSET,
        status=user.status,
        created_at=rfc3339(user.created_us),
    )


def _login(login: Login) -> LoginObject:
    return LoginObject(
        user=_user(login.user),
        access_token=login.access_token,
        refresh_token=login.refresh_token,
        session_id=login.session,
        expires_in=login.expires_in_s,
        expires_at=rfc3339(login.expires_at_s * 1_000_000),
    )


def _session(session: LoginSession, current: SessionId) -> SessionObject:
    return SessionObject(
        session_id=session.id,
        current=session.id == current,
        created_at=rfc3339(session.created_us),
        last_used_at=rfc3339(session.last_used_us),
        expires_at=rfc3339(session.expires_us),
        device_id=session.device.device_id or UNSET,
        user_agent=session.device.user_agent or UNSET,
        ip_address=session.device.address or UNSET,
    )
