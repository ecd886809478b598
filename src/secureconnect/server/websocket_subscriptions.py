"""What a socket listens to, and the socket's own methods: subscribe, unsubscribe, typing.

They are rows like all others, run by dispatch; what they need beside the ordinary context is the socket's `Subscriptions`. A row
may leave something to be done in the very step in which its answer was queued (`after_answer`): so the answer to `subscribe`
stands in front of the first replayed event.

One's own `user:` channel is always subscribed, but a client that comes back brings its position there only with its first
`subscribe`. So the place is taken at authentication and nothing is lost from then on, while events of it are held until the first
command, or `HOLD_S`: enough for the client to say where it was and get everything once. Who says it later gets what lies between
replayed, and may see again what came since.

A node may hear late of a removal that was undone long ago, and takes a place away whose last events are still on their way. A
position that the client says before it has read those was true when it left. So a socket remembers what its withdrawn places
brought: a position within that goes on at its end, as in a place that stayed. Who wants it again unsubscribes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import msgspec
import trio

from secureconnect.errors import Forbidden, SecureConnectError, TooLarge, Unavailable
from secureconnect.features.access.service import Access
from secureconnect.hub import Frame, Hub, Peer, Place
from secureconnect.ids import ConversationId, UserId, conversation_channel, user_channel
from secureconnect.server.admission import (
    EVERYTHING,
    Admission,
    After,
    Beginning,
    Places,
    Start,
    admit,
    everything,
    read_after,
    read_channels,
)
from secureconnect.server.endpoints import Context, Endpoint, Handler
from secureconnect.server.session import event
from secureconnect.server.wire import error_object

HOLD_S = 0.5
"""A client subscribes within a round trip of `hello`; who only listens gets its first event at most this late, once."""
BREATH = 64
"""Channels taken between two breaths of the event loop: places in open channels are taken without waiting."""


class Subscriptions:
    """The channels of one socket. `follows_all`: conversations that the user joins later belong to them."""

    __slots__ = ("_access", "_asked", "_brought", "_channels_max", "_is_held", "_late", "_places", "_user", "follows_all")

    def __init__(self, peer: Peer, access: Access, user: UserId, *, channels_max: int) -> None:
        self.follows_all = False
        self._places = Places(peer)
        self._access = access
        self._user = user
        self._channels_max = channels_max
        self._is_held = False
        self._late: dict[str, Beginning] | None = None
        self._asked: After | None = None  # the positions of the `subscribe` that is under way
        self._brought: dict[str, tuple[int, int]] | None = None  # by places that were withdrawn: behind which number, up to which

    async def open(self) -> None:
        """Take the place in one's own channel; its events are held until `release`. Raises: Unavailable."""
        with self._places.taking():
            await self._places.take(user_channel(self._user), after=None, first=1)
        self._is_held = True

    def release(self) -> None:
        """Let the events of one's own channel come. Idempotent."""
        if self._is_held:
            self._is_held = False
            self._places.peer.start((user_channel(self._user),))

    def start(self, channels: Mapping[str, object]) -> None:
        """Replay what is missed, then go on live."""
        self._places.peer.start(tuple(channels))

    def withdraw(self, channel: str) -> bool:
        """The user may not listen any more. False: did not."""
        brought = self._places.peer.brought(channel)
        if brought is not None:
            self._remember(channel, *brought)
        return self._places.withdraw(channel)

    def _remember(self, channel: str, began: int, reached: int) -> None:
        self._brought = self._brought or {}
        earlier_began, earlier_reached = self._brought.pop(channel, (began, began))
        self._brought[channel] = earlier_began if earlier_began <= began <= earlier_reached else began, reached
        if len(self._brought) > self._channels_max:
            del self._brought[next(iter(self._brought))]

    def leave(self, names: Mapping[str, object]) -> list[str]:
        """Unsubscribe; one's own channel stays. Returns those that were left."""
        if EVERYTHING in names:
            self.follows_all = False
            names = dict.fromkeys(self._places.peer.channels())
            self._brought = None
        if self._brought is not None:
            for name in names:
                self._brought.pop(name, None)
        return [name for name in names if name != user_channel(self._user) and self._places.peer.leave(name)]

    def give_up(self, channel: str) -> None:
        """A place that `follow` took and nobody was told of."""
        self._places.peer.leave(channel)

    async def subscribe(self, names: Mapping[str, object], after: After | None) -> tuple[dict[str, Shown], dict[str, None]]:
        """Take places. Returns the answer for each channel, and those to `start` once the answer is queued.

        `after`: None when the client comes for the first time. Else it has been here before, and what `all` brings in without a
        position of it was joined meanwhile: there it begins with the joining. What is named begins with what comes next.

        A channel that is subscribed already stays where it is if nothing behind `after` is missing here, else it begins anew
        there (`Peer.prepare`). One's own channel need not be named for that: a position of it is enough.

        Raises: Unavailable when `all` cannot be known. Cancellation and errors: what was not subscribed before is not then.
        """
        was_held, self._is_held = self._is_held, False  # the end of this command decides when one's own channel starts
        known, taken = dict.fromkeys(self._places.peer.channels()), dict[str, None]()
        was_following = self.follows_all
        self._asked = after
        try:
            with self._places.taking():
                answers: dict[str, Shown] = {}
                for count, (channel, wanted) in enumerate((await self._wanted(names, after)).items(), 1):
                    answers[channel] = await self._take(channel, wanted, known, taken)
                    if count % BREATH == 0:
                        await trio.lowlevel.checkpoint()
                for channel in [name for name in answers if self._places.is_withdrawn(name)]:
                    taken.pop(channel, None)
                    answers[channel] = _refused(Forbidden("You are not a member of this conversation"))
        except BaseException:
            self.follows_all = was_following
            for channel in taken:
                if channel not in known:
                    self._places.peer.leave(channel)
            self.start(known)  # also those that were placed anew: they go on from there, and nothing is lost
            raise
        finally:
            self._asked = None
        return answers, taken | ({user_channel(self._user): None} if was_held else {})

    async def _take(self, channel: str, wanted: _Wanted, known: Mapping[str, None], taken: dict[str, None]) -> Shown:
        """The answer for one channel; where there is a place now, it joins `taken`."""
        beginning = Start.NOW if channel in known and wanted.beginning is Start.JOINED else wanted.beginning
        members = self._places.peer.members
        if channel not in members and len(members) >= self._channels_max:
            return _refused(TooLarge(f"A socket listens to at most {self._channels_max} channels"))
        try:
            admission = wanted.admission or await admit(self._access, self._user, channel)
            shown = await self._place(channel, beginning, admission)
        except SecureConnectError as error:
            if isinstance(error, Unavailable) and self.follows_all:
                self._late = {**(self._late or {}), channel: beginning}
            return _refused(error)
        taken[channel] = None
        return shown

    async def _place(self, channel: str, beginning: Beginning, admission: Admission, *, is_news: bool = False) -> Shown:
        """Who begins with her joining has missed nothing: her place is said to be there, not at the end. Raises: as `take`.

        `is_news`: the server has heard of a joining, perhaps late. A client that subscribes without a position has none.
        """
        after = admission.behind(beginning)
        began, reached = (self._brought or {}).get(channel, (0, 0))
        if isinstance(after, int) and ((is_news and beginning is Start.JOINED) or began <= after):
            after = max(after, reached)
        place = await self._places.take(channel, after=after, first=admission.first)
        if beginning is Start.JOINED and after is not None and place.recovered:
            place = replace(place, position=after, missed=0)
        return _placed(place)

    def take_late(self) -> Mapping[str, Beginning]:
        """Conversations of `all` that could not be joined just now, with where they begin: to be followed later."""
        late, self._late = self._late, None
        return late or {}

    async def follow(self, channel: str, beginning: Beginning) -> bytes | None:
        """Join a conversation that belongs to `all` since just now. Returns the event that says so; None: nothing to do.

        Raises: as `admit`.
        """
        with self._places.taking():
            admission = await admit(self._access, self._user, channel) if self.follows_all else None
            if admission is None or not self.follows_all or channel in self._places.peer.members:
                return None  # asked again behind the wait: a command may have come between
            asked = (self._asked or {}).get(channel)
            if beginning is Start.JOINED and isinstance(asked, int) and asked >= admission.first - 1:
                beginning = asked  # the news has overtaken the client's `subscribe`
            shown = await self._place(channel, beginning, admission, is_news=True)
        return event("subscribed", {"channel": channel, **shown}, channel=channel)

    async def _wanted(self, names: Mapping[str, object], after: After | None) -> dict[str, _Wanted]:
        """Each channel with where it begins."""
        given, own = after or {}, user_channel(self._user)
        wanted: dict[str, _Wanted] = {own: _Wanted(given[own], Admission(1))} if own in given else {}
        if EVERYTHING in names:
            self.follows_all = True  # before the question: who is added during it is caught by one of the two
            unknown = Start.NOW if after is None else Start.JOINED
            for channel, admission in (await everything(self._access, self._user)).items():
                wanted[channel] = _Wanted(given.get(channel, unknown), admission)
        for name in names:
            if name != EVERYTHING:
                wanted.setdefault(name, _Wanted(given.get(name, Start.NOW), None))
        return wanted


class _Wanted(msgspec.Struct, frozen=True):
    """`admission`: None where it is still to be asked."""

    beginning: Beginning
    admission: Admission | None


Shown: TypeAlias = dict[str, object]
"""One channel's part of the answer to `subscribe`."""


def _placed(place: Place) -> Shown:
    shown: Shown = {"sequence": place.position, "first": place.first, "recovered": place.recovered, "missed": place.missed}
    if isinstance(place.position, str):
        shown["position"] = place.position  # as the events of such channels call it
    return shown | {"reset": True} if place.reset else shown


def _refused(error: SecureConnectError) -> Shown:
    return {"error": error_object(error)}


@dataclass(slots=True, kw_only=True)
class SocketContext(Context):
    """The context of a command on a native socket. `after_answer` runs in the step in which the answer was queued."""

    subscriptions: Subscriptions
    after_answer: Callable[[], None] | None = None


class SubscribeParams(msgspec.Struct):
    """`channels`: a list of names, or `all`. `after`: the position up to which the client has everything, by channel."""

    channels: str | list[str]
    after: str | dict[str, int | str] | None = None


class UnsubscribeParams(msgspec.Struct):
    """`channels`: a list of names, or `all`."""

    channels: str | list[str]


class TypingParams(msgspec.Struct):
    conversation_id: ConversationId
    is_typing: bool = True


def socket_methods(hub: Hub, access: Access, *, channels_max: int) -> list[Endpoint]:
    """The methods that a socket has beside the table."""

    async def subscribe(context: Context, params: SubscribeParams) -> object:
        assert isinstance(context, SocketContext)
        names = read_channels(params.channels, most=channels_max)
        answers, fresh = await context.subscriptions.subscribe(names, read_after(params.after))
        context.after_answer = partial(context.subscriptions.start, fresh)
        return {"channels": answers}

    async def unsubscribe(context: Context, params: UnsubscribeParams) -> object:
        assert isinstance(context, SocketContext)
        return {"channels": context.subscriptions.leave(read_channels(params.channels, most=channels_max))}

    async def typing(context: Context, params: TypingParams) -> object:
        user, channel = context.me.user, conversation_channel(params.conversation_id)
        await admit(access, user, channel)
        data = {"conversation_id": params.conversation_id, "user_id": user, "is_typing": params.is_typing}
        hub.send(channel, Frame(event("typing", data, channel=channel), channel, "typing"), coalesce=user)
        return {}

    def row(name: str, params: type[msgspec.Struct], call: Handler) -> Endpoint:
        return Endpoint(name=name, method="POST", path=f"/v1/ws#{name}", params=params, call=call)

    return [
        row("subscribe", SubscribeParams, subscribe),
        row("unsubscribe", UnsubscribeParams, unsubscribe),
        row("typing", TypingParams, typing),
    ]
