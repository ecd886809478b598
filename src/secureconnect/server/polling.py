"""Long polls: the same events under the same numbers as on a socket, for clients whose sockets do not work.

A poll is a short-lived member of the hub: it takes its places behind the positions that the client brings, collects what the feed
gives, and goes. So nothing is kept between two polls, any node can serve the next one, and switching between socket and poll
loses and repeats nothing in conversation channels. The answer's `after` is what the next poll should bring: it moves only with
events that the answer contains, or past those that cannot come, which a `gap` event says.

A poll may wait for a minute, so what a socket hears of meanwhile binds it too: a removed member's place is taken away and the
poll answered at once with `unsubscribed`, and the end of the login session or of the token's life ends it. And when the server
drains, every poll is answered with what it has, or empty with the positions that it brought, so that the client goes on elsewhere
instead of holding the ending up for its whole wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec
import trio
from msgspec import UNSET, UnsetType

from secureconnect.errors import AtCapacity, Forbidden, NotAuthenticated, NotFound
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import Identity
from secureconnect.hub import Frame, Hub, Peer, Place
from secureconnect.ids import ConversationId, UserId, conversation_channel
from secureconnect.observe import stage
from secureconnect.ports import Clock
from secureconnect.server.admission import (
    EVERYTHING,
    Admission,
    After,
    MembershipChanged,
    Places,
    SessionEnded,
    Start,
    admit,
    everything,
    read_after,
    read_channels,
    read_signal,
)
from secureconnect.server.attendance import Attendance
from secureconnect.server.degraded import Board, shown
from secureconnect.server.endpoints import Context, Endpoint, Via
from secureconnect.server.session import event
from secureconnect.server.wire import encode

POLLS_MAX = 1000
"""Polls waiting at once, a kind of connection of its own (failure-policy.md §1)."""
WAIT_S_MAX = 60.0
CHANNELS_MAX = 1000
"""Of one poll: each costs a place in the hub for as long as it waits."""
EVENTS_MAX = 1000
"""Of one answer; the next poll brings the rest."""
EVENTS_BYTES_MAX = 1 << 20
"""Of one answer; a single larger event still goes out, alone."""
REPLAY_S = 1.0
"""How long an answer that has something waits for the rest of what was missed, so that catching up takes few round trips."""


class PollParams(msgspec.Struct):
    """`channels`: names separated by commas, a list, or `all`. `after`: `channel:position` separated by commas, or an object."""

    channels: str | list[str]
    after: str | dict[str, int | str] | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 25.0

    def __post_init__(self) -> None:
        self.wait_s = _clamped(self.wait_s)


class MessagesPollParams(msgspec.Struct):
    """`after`: the sequence up to which the client has everything."""

    conversation_id: ConversationId
    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0)] = 25.0

    def __post_init__(self) -> None:
        self.wait_s = _clamped(self.wait_s)


class PollResult(msgspec.Struct):
    """`events`: envelopes as on the socket. `after`: what the next poll should bring. `degraded`: as `hello` has it, when there
    is anything to say."""

    events: list[dict[str, object]]
    after: dict[str, int | str]
    degraded: dict[str, dict[str, str]] | UnsetType = UNSET


class Polls:
    """The polls of one node."""

    def __init__(
        self,
        hub: Hub,
        access: Access,
        clock: Clock,
        *,
        polls_max: int = POLLS_MAX,
        board: Callable[[], Board] = dict,
        attendance: Attendance | None = None,
    ) -> None:
        """`board`: what is degraded now. `attendance` is told of each user's first and last poll here."""
        self._hub = hub
        self._board = board
        self._access = access
        self._clock = clock
        self._polls_max = polls_max
        self._attendance = attendance
        self._users: dict[UserId, dict[_Poll, None]] = {}
        self._is_ending = False
        self.waiting = 0
        hub.on_signal("session.ended", self._session_ended)
        hub.on_signal("membership", self._membership_changed)

    def end_waits(self) -> None:
        """Let polls over HTTP be answered at once, those that wait and those to come: their connections are about to close.

        A poll over a socket waits on: the socket has a farewell of its own, and would ask again at once until then.
        """
        self._is_ending = True
        for polls in self._users.values():
            for poll in polls:
                if poll.via == "http":
                    poll.end()

    async def realtime(self, context: Context, params: PollParams) -> msgspec.Raw:
        """`realtime.poll`. Raises: BadRequest, NotFound, Forbidden, NotAuthenticated, AtCapacity, Unavailable."""
        names = read_channels(params.channels, most=CHANNELS_MAX)
        return await self._answer(context, names, read_after(params.after), params.wait_s, _anything)

    async def messages(self, context: Context, params: MessagesPollParams) -> msgspec.Raw:
        """`messages.poll`: the same for one conversation, messages only."""
        channel = conversation_channel(params.conversation_id)
        after: After | None = None if params.after is None else {channel: params.after}
        return await self._answer(context, {channel: None}, after, params.wait_s, _is_message)

    async def _answer(
        self, context: Context, names: Mapping[str, None], after: After | None, wait_s: float, wants: Callable[[Frame], bool]
    ) -> msgspec.Raw:
        me = context.me
        if self.waiting >= self._polls_max:
            raise AtCapacity(retry_after_s=5.0)
        collector = _Collector(wants)
        peer = self._hub.connect(collector, polls=True)
        poll = _Poll(me, context.via, peer, collector)
        if self._is_ending and context.via == "http":
            poll.end()
        self.waiting += 1
        self._enter(me.user, poll)
        try:
            stage.at("join")
            await poll.join(self._access, names, after)
            if after is not None:
                stage.at("wait")
                await poll.wait(wait_s, life_s=max(0.0, me.expires_at_s - self._clock.now_us() / 1e6))
        finally:
            peer.close()
            self.waiting -= 1
            self._forget(me.user, poll)
        if poll.is_revoked:
            raise NotAuthenticated("The login session was ended", code="TOKEN_REVOKED")
        if poll.is_expired and not collector.payloads:
            raise NotAuthenticated("Token expired", code="TOKEN_EXPIRED")
        return _result(collector.payloads, {**poll.positions, **collector.positions}, self._board())

    def _enter(self, user: UserId, poll: _Poll) -> None:
        of_user = self._users.setdefault(user, {})
        if not of_user and self._attendance is not None:
            self._attendance.arrived(user)
        of_user[poll] = None

    def _forget(self, user: UserId, poll: _Poll) -> None:
        of_user = self._users[user]
        del of_user[poll]
        if not of_user:
            del self._users[user]
            if self._attendance is not None:
                self._attendance.left(user)

    def _session_ended(self, data: bytes) -> None:
        ended = read_signal(data, SessionEnded)
        for poll in list(self._users.get(ended.user_id, ())) if ended is not None else ():
            if ended is not None and poll.me.session == ended.session_id:
                poll.revoke()

    def _membership_changed(self, data: bytes) -> None:
        changed = read_signal(data, MembershipChanged)
        if changed is not None and changed.change == "removed":
            for poll in self._users.get(changed.user_id, ()):
                poll.withdraw(conversation_channel(changed.conversation_id), changed.reason)


class _Poll:
    """One poll under way."""

    __slots__ = ("_collector", "_missed", "is_expired", "is_revoked", "me", "places", "positions", "via")

    def __init__(self, me: Identity, via: Via, peer: Peer, collector: _Collector) -> None:
        self.me = me
        self.via = via
        self.places = Places(peer)
        self.positions: dict[str, int | str] = {}
        """Up to where the client has everything, as far as joining tells."""
        self.is_expired = self.is_revoked = False
        self._collector = collector
        self._missed = 0

    async def join(self, access: Access, names: Mapping[str, None], after: After | None) -> None:
        """Take a place in each channel behind the client's position. Raises: as `Places.take` and `admit`.

        Where it has none it begins at the channel's end; but who brings positions and asks for `all` begins with the joining,
        for that was since the last poll.
        """
        given, known = after or {}, dict[str, Admission | None]()
        with self.places.taking():
            if EVERYTHING in names:
                known = await everything(access, self.me.user)
            unknown = dict.fromkeys(known, Start.NOW if after is None else Start.JOINED)
            for channel in {**known, **names}:
                if channel == EVERYTHING:
                    continue
                try:
                    admission = known.get(channel) or await admit(access, self.me.user, channel)
                    behind = admission.behind(given.get(channel, unknown.get(channel, Start.NOW)))
                    place = await self.places.take(channel, after=behind, first=admission.first)
                except (Forbidden, NotFound):
                    if channel in names:
                        raise
                else:  # removed meanwhile, it does not belong to `all` any more
                    self._joined(channel, behind, place)

    def _joined(self, channel: str, known: int | str | None, place: Place) -> None:
        if known is None or not place.recovered:
            self.positions[channel] = place.position
        else:
            self.positions[channel] = known  # what was missed up to the end is still to come
            self._missed += place.missed
        if not place.recovered:
            data = {"channel": channel, "after": place.position, "cause": "reset" if place.reset else "not_kept"}
            self._collector.put(event("gap", data, channel=channel))

    async def wait(self, wait_s: float, *, life_s: float) -> None:
        """Let events come; wait for one, then briefly for the rest of what was missed. `life_s`: of the token, from now."""
        collector = self._collector
        self.places.peer.start(tuple(self.positions))
        with trio.move_on_after(life_s) as life:
            with trio.move_on_after(wait_s):
                while not collector.payloads and not collector.is_full:
                    await collector.more()
            with trio.move_on_after(min(REPLAY_S, wait_s)):
                while collector.payloads and collector.seen < self._missed and not collector.is_full:
                    await collector.more()
        self.is_expired = life.cancelled_caught

    def withdraw(self, channel: str, reason: str) -> None:
        """The user may not listen to `channel` any more: the answer says so, now, and has no position of it."""
        if self.places.withdraw(channel):
            self.positions.pop(channel, None)
            self._collector.withdraw(channel, event("unsubscribed", {"channel": channel, "reason": reason}, channel=channel))

    def end(self) -> None:
        """Wait no longer, and take nothing more."""
        self._collector.hang_up("drain")

    def revoke(self) -> None:
        self.is_revoked = True
        self._collector.hang_up("token_revoked")


class _Collector:
    """A hub sink that keeps what it gets until the answer is made; full, it refuses, and the next poll reads from there."""

    def __init__(self, wants: Callable[[Frame], bool]) -> None:
        self.payloads: list[bytes] = []
        self.positions: dict[str, int | str] = {}
        self.seen = 0
        self.is_full = False
        self._wants = wants
        self._bytes = 0
        self._changed = trio.Event()

    def put(self, payload: bytes) -> None:
        """An event of our own."""
        self.payloads.append(payload)

    def withdraw(self, channel: str, payload: bytes) -> None:
        """The last event of `channel`, and of this answer: who waits for more is not told later than need be."""
        self.positions.pop(channel, None)
        self.put(payload)
        self._end()

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        size = sum(len(frame.payload) for frame in frames if self._wants(frame))
        if self.is_full or (self._bytes and self._bytes + size > EVENTS_BYTES_MAX):
            if not droppable:
                self._end()
            return False
        for frame in frames:
            if frame.position is not None:
                self.positions[frame.channel] = frame.position
            if self._wants(frame):
                self.payloads.append(frame.payload)
        self.seen += len(frames)
        self._bytes += size
        if len(self.payloads) >= EVENTS_MAX:
            self.is_full = True
        self._changed.set()
        return True

    async def wait_room(self, frames: Sequence[Frame]) -> None:
        """There will be none: the poll is about to be answered, and its end cancels this."""
        await trio.sleep_forever()

    def hang_up(self, reason: str) -> None:
        self._end()

    async def more(self) -> None:
        """Until something was put in, or nothing more will be."""
        await self._changed.wait()
        self._changed = trio.Event()

    def _end(self) -> None:
        self.is_full = True
        self._changed.set()


def _clamped(wait_s: float) -> float:
    if not wait_s >= 0:
        raise ValueError("wait_s must be a number of seconds, 0 or more")
    return min(wait_s, WAIT_S_MAX)


def _anything(frame: Frame) -> bool:
    return True


def _is_message(frame: Frame) -> bool:
    return frame.event.startswith("message.") or frame.event == "gap"


def _result(payloads: Sequence[bytes], after: After, board: Board) -> msgspec.Raw:
    """The envelopes are spliced in as they are: nobody decodes them here."""
    told = b',"degraded":%b' % encode(shown(board)) if board else b""
    return msgspec.Raw(b'{"events":[%b],"after":%b%b}' % (b",".join(payloads), encode(after), told))


def endpoints(polls: Polls) -> list[Endpoint]:
    return [
        Endpoint(
            name="realtime.poll",
            method="GET",
            path="/v1/realtime/poll",
            also=(("POST", "/v1/realtime/poll"),),
            params=PollParams,
            call=polls.realtime,
            result=PollResult,
            deadline="poll",
            features=("live_delivery", "typing"),
            parallel=True,
            summary="Wait for events of many channels; without `after` the answer is where they end now",
        ),
        Endpoint(
            name="messages.poll",
            method="GET",
            path="/v1/messages/poll",
            params=MessagesPollParams,
            call=polls.messages,
            result=PollResult,
            permission="member",
            deadline="poll",
            features=("live_delivery",),
            parallel=True,
            summary="Wait for messages of one conversation",
        ),
    ]
