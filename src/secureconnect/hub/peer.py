"""One connection in the hub: its places in channels, and the account of what waits in its sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint_if_cancelled

from .channel import Channel, Member, State
from .errors import Closed
from .frame import Frame
from .place import Place, place_in_history, place_in_log
from .sink import DirectSink, SendNow, Sink

if TYPE_CHECKING:
    from .replay import Replays


class Peer:
    """Made by `Hub.connect`, ended by `close`. All but `prepare` is synchronous and returns at once.

    `label` is free for the owner: the session, the user, whatever a roster wants to show.
    """

    __slots__ = (
        "_apart", "_replays", "_send_now", "behind", "direct", "dropped_total", "is_open", "label", "members", "pending", "polls",
        "replay_scope", "sink",
    )  # fmt: skip

    def __init__(self, sink: Sink, replays: Replays, *, polls: bool) -> None:
        self.sink = sink
        self.label: object = None
        self.is_open = True
        self.polls = polls
        """What it takes is counted as polled, apart from live deliveries."""
        self._replays = replays
        self._send_now: SendNow | None = getattr(sink, "send_now", None)
        self.direct = self._send_now
        """What the pump may write with now; None: it must go through the sink."""
        self.members: dict[str, Member] = {}
        self.behind: dict[str, Member] | None = None
        """Those that a replay serves, in turn."""
        self.replay_scope: CancelScope | None = None
        self.pending = 0
        """Live events that wait in the sink."""
        self._apart = 0  # replayed ones that wait there
        self.dropped_total = 0
        """Ephemeral events that this connection did not get."""

    def __repr__(self) -> str:
        return f"<Peer {self.label!r} in {len(self.members)} channels>"

    # -- places

    async def prepare(self, channel: str, *, after: int | str | None = None, first: int = 1) -> Place:
        """Take a place in a channel, silent until `start`. From here on the channel is open, so nothing later is missed.

        `after`: the position up to which the client has everything (exclusive); None: from now on. `first`: the lowest number
        that this member may see.

        A second call for a channel never loses what the first would bring. Where all behind `after` was delivered to this place,
        or will be, it stays, and nothing comes twice. An older `after` is served as if for the first time: the place begins anew
        there, silent until `start`, and what was delivered since may come again. One that cannot be resumed leaves the place
        where it is, which is the `position` of the answer; so does None.

        Raises: SourceAway (the log's end could not be read; no place is taken), Closed. Cancellation: no place is taken.
        """
        await checkpoint_if_cancelled()
        channels = self._replays.channels
        with channels.hold(channel) as there:
            await channels.wait_open(there)
            tail = 0
            if isinstance(after, int) and after > (there.cursor or 0) and there.source is not None:
                tail = await channels.look(there)  # the client knows more than this node has heard: ask the log
            return self._take_place(there, after, first, tail)

    def _take_place(self, channel: Channel, after: int | str | None, first: int, tail: int) -> Place:
        """`tail`: of the log, if it was asked."""
        if not self.is_open:
            raise Closed("the peer was closed")
        place, cursor, number, end = self._judge(channel, after, first, tail)
        member = self.members.get(channel.name)
        if member is not None:
            present = channel.reached(member)
            if member.state is not State.SILENT and number is not None and member.began <= number <= end:
                return replace(place, recovered=True, reset=False, missed=max(0, end - present))
            if after is None or not place.recovered:
                return replace(place, position=present if channel.history is None else channel.history.position(present))
            self.leave(channel.name)
        self.members[channel.name] = channel.join(self, cursor)
        return place

    def _judge(self, channel: Channel, after: int | str | None, first: int, tail: int) -> tuple[Place, int, int | None, int]:
        """A new member's place and its cursor; `after` as a number of this channel, if it is one; and the channel's end."""
        if (history := channel.history) is not None:
            history.forget(current_time())
            return *place_in_history(after, history), None if after is None else history.offset(after), history.tail
        tail, first = max(tail, channel.cursor or 0), max(first, channel.first)
        place, cursor = place_in_log(after, tail=tail, first=first, entries_max=self._replays.limits.replay_entries_max)
        return place, cursor, after if isinstance(after, int) else None, max(tail, first - 1)

    def start(self, channels: Sequence[str]) -> None:
        """Deliver to these places: what was missed first, then everything newer. Unknown and started ones stay as they are."""
        for name in channels:
            member = self.members.get(name)
            if member is not None and member.state is State.SILENT:
                self._replays.start(member)

    def brought(self, channel: str) -> tuple[int, int] | None:
        """All of `channel` behind the first number up to the second went to the sink; None: no place, or no log behind it."""
        member = self.members.get(channel)
        return None if member is None or member.channel.source is None else (member.began, member.channel.reached(member))

    def leave(self, channel: str) -> bool:
        """Give a place up; what waits in the sink still leaves. False: there was none."""
        member = self.members.pop(channel, None)
        if member is None:
            return False
        if self.behind is not None:
            self.behind.pop(channel, None)
        member.channel.leave(member)
        self._replays.channels.release(member.channel)
        return True

    def channels(self) -> Sequence[str]:
        """Where it has a place, in the order of taking them."""
        return tuple(self.members)

    def close(self) -> None:
        """Leave everything; what waits in the sink counts as dropped. Idempotent."""
        if not self.is_open:
            return
        self.is_open = False
        for name in tuple(self.members):
            self.leave(name)
        self._replays.ledger.discarded("disconnected", self.pending)
        self.pending = self._apart = 0
        self._replays.closed(self)

    # -- said by the owner of the sink

    def busy(self) -> None:
        """Bytes wait in front of the socket: the pump must not write to it itself."""
        if self.direct is not None:
            self.direct = None
            for member in self.members.values():
                member.channel.slow_down(member)

    def idle(self) -> None:
        """Nothing waits any more."""
        if self.direct is None and self._send_now is not None:
            self.direct = self._send_now
            for member in self.members.values():
                member.channel.speed_up(member)

    def delivered(self, frames: int) -> None:
        """So many event frames of the sink's queue have left for the kernel."""
        frames -= self._settle_apart(frames)
        frames = min(frames, self.pending)
        self.pending -= frames
        self._replays.ledger.left(frames)

    def dropped(self, frames: int, cause: str = "coalesced") -> None:
        """So many ephemeral frames that waited in the sink will not leave: a newer one took their place."""
        frames = min(frames, self.pending)
        self.pending -= frames
        self.dropped_total += frames
        self._replays.ledger.discarded(cause, frames)

    # -- used by the pump and the replay

    def offer(self, frames: Sequence[Frame], *, droppable: bool) -> bool:
        """Live events. They are on the books before the sink sees them: it may report them as delivered at once."""
        count = len(frames)
        if self.polls:
            return self._offer_polled(frames, droppable)
        self._owe(count)
        if self.sink.offer(frames, droppable=droppable):
            return True
        self._owe(-count)
        return False

    def offer_replayed(self, frames: Sequence[Frame]) -> bool:
        """Events that the log brings up."""
        if self.polls:
            return self._offer_polled(frames, False)
        self._apart += len(frames)
        if self.sink.offer(frames, droppable=False):
            self._replays.ledger.replayed += len(frames)
            return True
        self._settle_apart(len(frames))
        return False

    def catch_up(self, member: Member) -> None:
        """A member of this peer is behind: replay to it."""
        self._replays.begin(member)

    def refused(self, cause: str, frames: int) -> None:
        """Ephemeral events that the sink did not take."""
        self.dropped_total += frames
        self._replays.ledger.lost(cause, frames)

    def keep(self, rest: memoryview | bytes, frames: int) -> None:
        """The socket took less than all of a direct write."""
        self._owe(frames)
        self.busy()
        _direct(self.sink).keep(rest, frames)

    def broken(self, error: OSError) -> None:
        """A direct write failed: nothing more is written that way."""
        self.busy()
        _direct(self.sink).broken(error)

    def _offer_polled(self, frames: Sequence[Frame], droppable: bool) -> bool:
        if not self.sink.offer(frames, droppable=droppable):
            return False
        self._replays.ledger.polled += len(frames)
        return True

    def _owe(self, frames: int) -> None:
        self.pending += frames
        self._replays.ledger.queued(frames)

    def _settle_apart(self, frames: int) -> int:
        settled = min(frames, self._apart)
        self._apart -= settled
        return settled


def _direct(sink: Sink) -> DirectSink:
    """Only a sink with `send_now` is ever written to directly."""
    return sink  # type: ignore[return-value]  # `direct` was taken from its `send_now`
