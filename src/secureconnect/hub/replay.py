"""Replays: how a member that is behind comes up to the feed, waiting for room, and is live from the very step it arrives in.

While a member replays, the replay alone owns its cursor; live events pass it by. One task per peer that is behind, none else.
Reads go to the source in pages; what a page brings is offered entry by entry as room allows, for a page may be larger than the
sink. Only a sink that makes no room for `Limits.replay_wait_s` is given up: the connection ends, and its client resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from .channel import TURN_BYTES, Member, State
from .channels import Channels
from .errands import Errands
from .errors import SourceAway
from .feed import PAGE, pause_s
from .frame import GAP, Item, gap_frame
from .ledger import Ledger
from .limits import Limits
from .peer import Peer

LAG_PAUSE_S = 0.1
"""The feed knows more than this answer of the source: a replica is late."""


class Replays:
    """Starts members, and brings those up that are behind."""

    def __init__(
        self, channels: Channels, ledger: Ledger, limits: Limits, errands: Errands, *, random: Callable[[], float]
    ) -> None:
        self.channels = channels
        self.ledger = ledger
        self.limits = limits
        self.peers: dict[Peer, None] = {}
        self.running = 0
        self._errands = errands
        self._random = random

    def closed(self, peer: Peer) -> None:
        """The peer has left everything."""
        self.peers.pop(peer, None)
        if peer.replay_scope is not None:
            peer.replay_scope.cancel()

    def start(self, member: Member) -> None:
        """Live at once when nothing is missing, else behind."""
        if not self._go_live(member):
            member.channel.fall_behind(member)
            self.begin(member)

    def begin(self, member: Member) -> None:
        """A member is behind: see to it."""
        peer = member.peer
        if peer.behind is None:
            peer.behind = {}
            self.running += 1
            self._errands.begin(partial(self._run, peer))
        peer.behind[member.channel.name] = member

    async def _run(self, peer: Peer) -> None:
        """Until nobody is behind. Cancellation: every member stays behind."""
        failures = 0
        with anyio.CancelScope() as scope:
            peer.replay_scope = scope
            while peer.behind:
                name, member = next(iter(peer.behind.items()))
                try:
                    await self._advance(member)
                    failures = 0
                except SourceAway:
                    failures += 1
                    if (present := peer.behind.pop(name, None)) is not None:
                        peer.behind[name] = present  # the others first
                    await anyio.sleep(pause_s(failures) * (0.5 + self._random()))
        peer.behind = peer.replay_scope = None
        self.running -= 1

    async def _advance(self, member: Member) -> None:
        """One page, or what must be told before it. Raises: SourceAway."""
        gap = member.gap
        if gap is not None:
            if await self._hand_over(member, (gap,)) and member.gap is gap:
                member.gap = None
        else:
            items = await self._page(member)
            if items:
                await self._hand_over(member, items)
            elif not self._has_arrived(member):
                await anyio.sleep(LAG_PAUSE_S)
        if member.state is State.BEHIND:
            self._go_live(member)
        await checkpoint()

    async def _page(self, member: Member) -> Sequence[Item]:
        """What follows the member's cursor, with a gap in front when that is no longer kept."""
        channel, cursor = member.channel, member.cursor
        after: int | str
        if channel.history is not None:
            channel.history.forget(anyio.current_time())
            first, items = channel.history.first, channel.history.after(cursor, PAGE)
            cause, after = "history", channel.history.position(first - 1)
        else:
            page = await self.channels.read(channel, cursor, PAGE)
            first, items = page.first, [item for item in page.items if item.sequence > cursor]
            cause, after = "retention", first - 1
        if first > cursor + 1:
            return [Item(first - 1, gap_frame(channel.name, after=after, cause=cause)), *items]
        return items if items and items[0].sequence == cursor + 1 else ()

    async def _hand_over(self, member: Member, items: Sequence[Item]) -> bool:
        """Offer these in order, as many at once as fit. False: the member needs them no more, or its connection was ended."""
        done, step, gap = 0, len(items), member.gap
        deadline = anyio.current_time() + self.limits.replay_wait_s
        while done < len(items):
            if member.state is not State.BEHIND or member.gap is not gap:
                return False  # it left, or was moved to where these are no longer next
            chunk = _portion(items, done, step)
            if member.peer.offer_replayed([item.frame for item in chunk]):
                done, step = done + len(chunk), step * 2
                member.cursor = chunk[-1].sequence
                if chunk[0].frame.event == GAP:
                    member.began = chunk[0].sequence
                deadline = anyio.current_time() + self.limits.replay_wait_s
            elif len(chunk) > 1:
                step = len(chunk) // 2
            elif not await self._wait_room(member, chunk[0], deadline):
                return False
        return True

    async def _wait_room(self, member: Member, item: Item, deadline: float) -> bool:
        """False: there was none in time, though nothing moved, and the connection was ended."""
        peer = member.peer
        is_late = True
        while is_late:
            left_bytes = getattr(peer.sink, "left_bytes", 0)
            with anyio.CancelScope(deadline=deadline) as scope:
                await peer.sink.wait_room([item.frame])
                await checkpoint()
            is_late = scope.cancelled_caught and getattr(peer.sink, "left_bytes", 0) != left_bytes
            deadline = anyio.current_time() + self.limits.replay_wait_s
        if scope.cancelled_caught and member.state is State.BEHIND:
            self.ledger.hung_up += 1
            peer.sink.hang_up("slow_consumer")
            peer.close()
        return peer.is_open

    def _has_arrived(self, member: Member) -> bool:
        cursor = member.channel.cursor
        return cursor is not None and member.cursor >= cursor and member.gap is None

    def _go_live(self, member: Member) -> bool:
        """The hand-over: whoever has all that passed the feed takes what passes next, with no step in between."""
        if not self._has_arrived(member):
            return False
        if member.peer.behind is not None:
            member.peer.behind.pop(member.channel.name, None)
        member.channel.go_live(member)
        return True


def _portion(items: Sequence[Item], begin: int, count: int) -> Sequence[Item]:
    """At least one, at most `count`, and no more bytes than a turn of the pump brings: an idle sink takes all at once."""
    end, size = begin, 0
    while end < min(len(items), begin + count) and size < TURN_BYTES:
        size += len(items[end].frame.payload)
        end += 1
    return items[begin:end]
