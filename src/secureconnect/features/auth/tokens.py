"""Access and refresh tokens: how they are made, recognised, and kept apart.

An *access token* is a JWT (RFC 7519), HS256, with the claims of the original server plus `sid` (the login session) and `typ`.
It is verified without asking anybody, and its verification is remembered, so that a request costs a hash and a look into a
dictionary.

A *refresh token* is opaque: `<session>.<64 characters>`, which hold 32 bytes that nobody can guess and a tag of 16 bytes by which
we know that we made it. So a forged or damaged one is refused before any store is asked, and can never end the session whose id
it names, while a genuine one that was replaced long ago is still recognised as reuse. Stores see only its SHA-256 (it is random:
no slow hash is needed).

Replacement. With a `client_refresh_id` the next token is an HMAC, under a key of this server, of the present token and that id:
whoever repeats the request gets the same answer without anything secret having been stored, and whoever has only the old token
cannot compute the next. Without one it is random, and a repetition is reuse.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from secureconnect.errors import NotAuthenticated
from secureconnect.features.auth.model import Identity, User
from secureconnect.ids import SessionId, UserId, as_uuid
from secureconnect.ports import Clock

ISSUER: Final = "secureconnect-auth"
AUDIENCE: Final = "secureconnect-api"
ACCESS_TOKEN_S: Final = 900
EARLY_LEEWAY_S: Final = 300
"""A token may begin this much later than now: clocks of nodes differ and jump back. Beyond it the client is told to refresh."""
SECRET_BYTES_MIN: Final = 32
"""RFC 7518 §3.2: as long as the hash's output."""
REMEMBERED_MAX: Final = 8192
"""Verified tokens kept, about 600 bytes each. The least recently used goes first."""
TOKEN_CHARS_MAX: Final = 4096
"""With the longest fields a token has about 2,600 characters; a longer text is none of ours and is not looked at."""

_HEADER: Final = {"alg": "HS256", "typ": "JWT"}
_ALGORITHMS: Final = ["HS256"]
_ACCESS: Final = "access"
_NONCE_BYTES: Final = 32
_TAG_BYTES: Final = 16
_REFRESH = re.compile(r"([^.\s]{1,64})\.([A-Za-z0-9_-]{64})")


class _Claims(msgspec.Struct):
    user_id: str
    email: str
    username: str
    role: str
    aud: str
    iss: str
    sub: str
    iat: int
    nbf: int
    exp: int
    jti: str
    sid: str
    typ: str


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token that this server made once; whether it is still the present one only the store knows."""

    session: SessionId
    nonce: bytes
    text: str

    def __repr__(self) -> str:
        return f"RefreshToken({self.session})"

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


class Tokens:
    """Makes and verifies tokens under one secret, shared by all nodes. Another secret ends every token of both kinds."""

    def __init__(self, secret: bytes, clock: Clock, *, access_token_s: int = ACCESS_TOKEN_S) -> None:
        assert len(secret) >= SECRET_BYTES_MIN, "config refuses shorter ones"
        self.access_token_s = access_token_s
        self._clock = clock
        self._key = OctKey.import_key(secret)
        self._refresh_key = hmac.digest(secret, b"secureconnect refresh token 1", "sha256")
        self._decode = msgspec.json.Decoder(_Claims).decode
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()

    def access(self, user: User, refresh: RefreshToken, issued_us: int) -> str:
        """The access token that goes with a refresh token: the same arguments give the same token."""
        issued_s = issued_us // 1_000_000
        claims = _Claims(
            user_id=user.id,
            email=user.email,
            username=user.username,
            role=user.role,
            aud=AUDIENCE,
            iss=ISSUER,
            sub=user.id,
            iat=issued_s,
            nbf=issued_s,
            exp=issued_s + self.access_token_s,
            jti=as_uuid(self._mac(b"jti", refresh.session.encode(), refresh.nonce)[:16]),
            sid=refresh.session,
            typ=_ACCESS,
        )
        return jws.serialize_compact(_HEADER, msgspec.json.encode(claims), self._key, algorithms=_ALGORITHMS)

    def verify(self, token: str) -> Identity:
        """Whose token this is: signature, issuer, audience, type and life. Revocation is not asked here.

        Raises: NotAuthenticated (`UNAUTHORIZED`, or `TOKEN_EXPIRED` when refreshing helps).
        """
        if len(token) > TOKEN_CHARS_MAX or not token.isascii():
            raise NotAuthenticated("Invalid token")
        key = hashlib.sha256(token.encode()).digest()
        identity = self._remembered.get(key)
        if identity is None:
            identity = self._remembered[key] = self._read(token)
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(key)
        self.check_life(identity)
        return identity

    def check_life(self, identity: Identity) -> None:
        """Raises: NotAuthenticated(`TOKEN_EXPIRED`)."""
        if identity.expires_at_s * 1_000_000 <= self._clock.now_us():
            raise NotAuthenticated("Token expired", code="TOKEN_EXPIRED")

    def first_refresh(self, session: SessionId, nonce: bytes) -> RefreshToken:
        """The first token of a session, or one that nobody can ask for again. `nonce`: 32 bytes of chance."""
        assert len(nonce) == _NONCE_BYTES
        sealed = base64.urlsafe_b64encode(nonce + self._tag(session, nonce)).decode()
        return RefreshToken(session, nonce, f"{session}.{sealed}")

    def next_refresh(self, present: RefreshToken, client_refresh_id: str) -> RefreshToken:
        """The token that replaces `present` for this id: the same arguments give the same token."""
        nonce = self._mac(b"next", present.text.encode(), client_refresh_id.encode())
        return self.first_refresh(present.session, nonce)

    def read_refresh(self, text: str) -> RefreshToken | None:
        """None for anything that this server did not make as a refresh token."""
        match = _REFRESH.fullmatch(text) if text.isascii() else None
        if match is None:
            return None
        session, raw = SessionId(match[1]), base64.urlsafe_b64decode(match[2])
        nonce, tag = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        return RefreshToken(session, nonce, text) if hmac.compare_digest(tag, self._tag(session, nonce)) else None

    def _read(self, token: str) -> Identity:
        try:
            claims = self._decode(jws.deserialize_compact(token, self._key, algorithms=_ALGORITHMS).payload)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Whatever a stranger's header makes of the parser: it is no token. msgspec's errors are ValueErrors.
            raise NotAuthenticated("Invalid token") from None
        if claims.aud != AUDIENCE:
            raise NotAuthenticated("Invalid token audience")
        if claims.iss != ISSUER or claims.typ != _ACCESS or claims.sub != claims.user_id:
            raise NotAuthenticated("Invalid token")
        if max(claims.nbf, claims.iat) > self._clock.now_us() // 1_000_000 + EARLY_LEEWAY_S:
            raise NotAuthenticated("Token is not valid yet", code="TOKEN_EXPIRED")
        return Identity(
            user=UserId(claims.user_id),
            session=SessionId(claims.sid),
            username=claims.username,
            email=claims.email,
            role=claims.role,
            expires_at_s=claims.exp,
        )

    def _tag(self, session: SessionId, nonce: bytes) -> bytes:
        return self._mac(b"tag", session.encode(), nonce)[:_TAG_BYTES]

    def _mac(self, purpose: bytes, first: bytes, second: bytes) -> bytes:
        """Unambiguous: `purpose` is one of three constants, `first` carries its length."""
        return hmac.digest(self._refresh_key, purpose + len(first).to_bytes(4, "big") + first + second, "sha256")
