"""How a login session is put to its end: stored, in force on this node, told to every other.

In this order: the store (session and revocation in one step), then, without a wait between, this node's revocation set and the
signal `session.ended`, on which sockets hang up. A request that is cancelled after the store has committed leaves the rest to
`follow`, which finds the row within its period; so do the other nodes when the signal is lost.

While the store is away an ending is kept on this node's disk (`keep`) and brought into the store later (`bring_home`). It holds
here at once and elsewhere as soon as the signal gets there, which `hold` repeats; nothing takes it back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import msgspec
import structlog

from secureconnect.errors import NotAuthenticated, NotFound, Unavailable
from secureconnect.features.auth.model import Ack, Ending, EndReason, Identity, Revocation
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.store import RevocationStore, SessionStore
from secureconnect.features.auth.tokens import EARLY_LEEWAY_S
from secureconnect.ids import SessionId, UserId
from secureconnect.observe import stage
from secureconnect.ports import Clock

SESSION_ENDED: Final = "session.ended"
"""The signal's name; its data is `{session_id, user_id, reason}` in JSON."""

Keep: TypeAlias = Callable[[SessionId, UserId, Ending], Awaitable[object]]
"""Keeps an ending that the store could not take, to bring it there later. Raises: Unavailable, when that is not possible."""

_log = structlog.get_logger("secureconnect.auth")


class _Ended(msgspec.Struct):
    session_id: str
    user_id: str
    reason: str


class SessionEndings:
    """One per node. `keep` None: a session is not ended while the store is away. `signal` as `Auth`'s."""

    def __init__(
        self,
        sessions: SessionStore,
        revocations: RevocationSet,
        *,
        clock: Clock,
        access_token_s: int,
        signal: Callable[[str, bytes], None],
        keep: Keep | None = None,
    ) -> None:
        self._sessions, self._revocations, self._clock = sessions, revocations, clock
        self._signal, self._keep = signal, keep
        self._life_us = (access_token_s + EARLY_LEEWAY_S) * 1_000_000

    def check(self, identity: Identity) -> None:
        """Whether a token is still good. Raises: NotAuthenticated (`TOKEN_REVOKED`, `TOKEN_EXPIRED`)."""
        if self._revocations.refuses(identity):
            raise NotAuthenticated("Token revoked", code="TOKEN_REVOKED")
        if self._revocations.expires_early(identity):
            raise NotAuthenticated("Token expired", code="TOKEN_EXPIRED")

    def ending(self, reason: EndReason, at_us: int) -> Ending:
        """The leeway: another node's clock may have been ahead when it gave the last token out."""
        return Ending(reason, at_us=at_us, until_us=at_us + self._life_us)

    async def end(self, session: SessionId, user: UserId, reason: EndReason) -> Ack | None:
        """None: the user has no such living session. Raises: Unavailable (repeat it): nobody could keep it."""
        ending = self.ending(reason, self._clock.now_us())
        stage.at("sql")
        try:
            is_ended = await self._sessions.end(session, user, ending)
        except Unavailable as error:
            await self.keep(session, user, ending, because=error)
            return "accepted"
        if is_ended:
            self.enforce(session, user, ending)
        return "stored" if is_ended else None

    async def keep(self, session: SessionId, user: UserId, ending: Ending, *, because: Unavailable) -> None:
        """The store is away, as `because` says, which is raised when this node keeps nothing. Raises: Unavailable.

        In force first: when the disk fails too, the answer says so, and the tokens are refused here all the same.
        """
        if self._keep is None:
            raise because
        self.enforce(session, user, ending)
        _log.info("session_end_kept", session_id=session, user_id=user, reason=ending.reason)
        await self._keep(session, user, ending)

    def enforce(self, session: SessionId, user: UserId, ending: Ending) -> None:
        """From here on its tokens are refused on this node, and every node is told."""
        self._revocations.add(session, user, ending.until_us)
        self._signal(SESSION_ENDED, msgspec.json.encode(_Ended(session, user, ending.reason)))

    def hold(self, endings: Iterable[tuple[SessionId, UserId, EndReason]]) -> None:
        """Keep these in force, here and wherever the signal gets to. Say it again until the store has them."""
        now_us = self._clock.now_us()
        for session, user, reason in endings:
            self.enforce(session, user, self.ending(reason, now_us))

    async def bring_home(self, session: SessionId, user: UserId, reason: EndReason) -> bool:
        """Store an ending that was kept. False: it had ended. Raises: NotFound (the user has no such session), Unavailable.

        Every token that the session gave out until now ends with it, and doing it twice does no more than once.
        """
        ending = self.ending(reason, self._clock.now_us())
        if await self._sessions.end(session, user, ending):
            self.enforce(session, user, ending)
            return True
        stored = await self._sessions.session(session)
        if stored is None or stored.user != user:
            raise NotFound("There is no such session")
        return False

    def heard(self, data: bytes) -> None:
        """The handler of the signal `session.ended`: what another node ended is refused here too. Never raises."""
        try:
            ended = msgspec.json.decode(data, type=_Ended)
        except msgspec.DecodeError:
            _log.warning("signal_unreadable", signal=SESSION_ENDED, bytes=len(data))
            return
        until_us = self._clock.now_us() + self._life_us
        self._revocations.add(SessionId(ended.session_id), UserId(ended.user_id), until_us)

    async def follow(self, store: RevocationStore) -> None:
        """Take over what other nodes (or a command line beside this one) ended and no signal told. Call it every 2 s or oftener.

        Raises: BackendDown, DeadlineExceeded; call it again.
        """
        await self._revocations.follow(store, self._enforce_stored)

    def _enforce_stored(self, row: Revocation) -> None:
        self.enforce(row.session, row.user, Ending(row.reason, row.at_us, row.until_us))
