"""Who is there, over all sockets, polls and nodes; and telling those who would like to know.

Theory. Each node holds a lease for each of its users in the store that all share (`leasing`). Whoever's call made a user come or
go has news of it, tells it two seconds later, and only if it is true then: who reconnects on another node meanwhile is not told
to have gone, and who told it once is not contradicted. So a change is told by one node, once, however many hold leases.

While the store is away, or has just returned and does not know everybody again, answers are partial: this node's own users, and
whatever the store has. Nothing is copied back: each node takes leases for the users that it has then, at a random moment within
`REBUILD_S`. What changed meanwhile, or may have been changed by a call whose answer was lost, is news whatever the store says of
it, and told once all nodes had their time; of whom something partial was told, the truth is told then. Changes on a node that
died in an outage are told by nobody: who asks learns them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog
from anyio.lowlevel import checkpoint

from secureconnect.errors import SecureConnectError, Unavailable
from secureconnect.features.access.service import Access
from secureconnect.features.presence.leasing import LINGER_S, Leasing
from secureconnect.features.presence.store import USERS_MAX, Change, LeaseStore, Sighting
from secureconnect.hub import Frame
from secureconnect.ids import NodeId, UserId, conversation_channel
from secureconnect.ports import Clock, rfc3339

DEBOUNCE_S: Final = 2.0
"""Between a change and its telling (interface.md §9)."""
EXPIRE_S: Final = 2.0
"""Between two looks for leases that are due; each costs the store a few µs when there is none."""
REBUILD_S: Final = 5.0
"""Within this after the store's return every node has noticed it, and within as much again taken its leases."""
TOLD_MAX: Final = 64
"""Users told of in one go: each costs a question to the database. After a return everybody is told of again, at this pace."""
LISTENERS_MAX: Final = 10_000
"""Events written on this node in one go, some 10 ms: when a group of 1,000 comes back at once, each of them is told of each."""
NEWS_MAX: Final = 10_000
"""Full: the oldest is dropped, and who asks learns it."""
VISITS: Final = "visits"
"""Stands for a node in the leases of who says by HTTP that she is there. No node has such a name."""
VISIT_S: Final = 300.0
"""How long that holds: as it did in the original (contract.md §4.3)."""
BREATH: Final = 256
"""Channels told between two breaths of the event loop."""

_log = structlog.get_logger("secureconnect.presence")
encode = msgspec.json.Encoder().encode


class Send(Protocol):
    """`Hub.send`."""

    def __call__(self, channel: str, frame: Frame, *, coalesce: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class _News:
    """`is_there` None: tell whatever is true."""

    is_there: bool | None
    due_s: float


class Presence:
    """`now_s` is monotonic time in seconds. `generation()` grows whenever the store was lost and has come back.

    `listeners`: who has a channel open on this node (`Hub.members`). `random()` is uniform in [0, 1).

    `lease` and `tell` are called again and again by one task each (`backends.presence`); the rest may be called at any time.
    """

    def __init__(
        self, store: LeaseStore, access: Access, *, node: NodeId, clock: Clock, now_s: Callable[[], float], send: Send,
        listeners: Callable[[str], Sequence[object]], random: Callable[[], float], generation: Callable[[], int] = int,
    ) -> None:  # fmt: skip
        self.told_total = 0
        self.dropped_total = 0
        """News that nobody was told, for want of room."""
        self._store, self._access, self._node, self._clock = store, access, node, clock
        self._now_s, self._send, self._random, self._generation = now_s, send, random, generation
        self._listeners = listeners
        self._leasing = Leasing()
        self._news: dict[UserId, _News] = {}  # the newest last
        self._doubtful: dict[UserId, None] = {}
        """Those of whom something was told that only this node knew."""
        self._is_away = False
        self._seen_generation: int | None = None
        self._whole_at_s = -math.inf
        self._again_at_s = math.inf
        """When all leases are to be taken again."""
        self._leased_s = self._expired_s = math.inf

    # -- sockets and polls tell

    def arrived(self, user: UserId) -> None:
        """A socket or a poll of hers began on this node."""
        if self._leasing.arrived(user) and self._is_away:
            self._note([user], is_there=True)

    def left(self, user: UserId) -> None:
        """It ended. Call as often as `arrived`."""
        self._leasing.left(user, self._now_s())

    async def visit(self, user: UserId, *, is_there: bool) -> None:
        """She says so herself, without a socket: it holds for `VISIT_S`. While the store is away nothing is kept."""
        with suppress(Unavailable):
            if is_there:
                self._heard(await self._store.hold(VISITS, [user], lease_s=VISIT_S))
            else:
                self._heard(await self._store.release(VISITS, [user]))

    # -- questions

    @property
    def users(self) -> int:
        """On this node, those who linger among them."""
        return self._leasing.users

    @property
    def is_partial(self) -> bool:
        """Whether answers are of this node's own users above all, others may be missing."""
        return self._is_away or self._now_s() < self._whole_at_s

    async def read(self, me: UserId, users: Sequence[UserId]) -> tuple[Sequence[Sighting], bool]:
        """Each of `users`, and whether that is partial. Who shares no conversation with `me` is said not to be there.

        At most `USERS_MAX`. Raises: Unavailable when it cannot be known who shares one.
        """
        others = [user for user in users if user != me]
        shown = dict.fromkeys(await self._access.co_members(me, others) if others else (), None)
        asked = [user for user in users if user == me or user in shown]
        found: dict[UserId, Sighting] = {}
        is_partial = self.is_partial
        if not self._is_away:
            try:
                found = {one.user: one for one in await self._store.look(asked)}
            except Unavailable:
                is_partial = True
        here = {user: Sighting(user, True) for user in asked if self._leasing.is_here(user)}
        return [here.get(user) or found.get(user) or Sighting(user, False) for user in users], is_partial

    # -- leases

    async def lease(self) -> None:
        """Do what is due. Raises: nothing but Cancelled: then call `failed`, for a call may have been done."""
        now_s = self._now_s()
        self._leasing.pass_time(max(0.0, now_s - self._leased_s))
        self._leased_s = now_s
        gone = self._leasing.end_lingering(now_s)
        if self._is_away:
            self._note(gone, is_there=False)
        try:
            await self._expire()
            await self._release()
            await self._hold()
            await self._renew()
        except SecureConnectError as error:  # a refusal that is a bug, too: it is told here, and no reason to end the node
            if not self._is_away:
                _log.warning("presence_partial", error=str(error))
            self.failed()

    def failed(self) -> None:
        """A call was refused, or nobody knows what became of it."""
        self._is_away = True

    async def farewell(self) -> None:
        """The node ends: its leases run out soon, unless somebody takes them up elsewhere. Raises: Unavailable."""
        for batch in _batches(self._leasing.everybody()):
            await self._store.hold(self._node, batch, lease_s=LINGER_S)

    def _returned(self) -> None:
        """The store is there (again): all must be taken again, and until every node has done it nobody knows the whole."""
        now_s = self._now_s()
        self._is_away = False
        self._whole_at_s = now_s + 2 * REBUILD_S
        self._again_at_s = now_s + self._random() * REBUILD_S
        self._note(list(self._doubtful), is_there=None)
        self._doubtful.clear()

    async def _expire(self) -> None:
        """Also the question whether the store is there, and still the one that it was."""
        now_s = self._now_s()
        if self._is_away or abs(now_s - self._expired_s) >= EXPIRE_S:
            self._expired_s = now_s
            self._heard(await self._store.expire())
        generation, seen = self._generation(), self._seen_generation
        self._seen_generation = generation
        if self._is_away or seen not in (None, generation):
            self._returned()

    async def _release(self) -> None:
        while users := self._leasing.to_release():
            change = await self._store.release(self._node, users)
            self._leasing.released(users)
            self._note(users if self.is_partial else change.went, is_there=False)

    async def _hold(self) -> None:
        while users := self._leasing.to_hold():
            change = await self._store.hold(self._node, users)
            self._leasing.held(users)
            self._note(users if self.is_partial else change.came, is_there=True)

    async def _renew(self) -> None:
        if self._now_s() >= self._again_at_s:
            self._again_at_s = math.inf
            self._leasing.lost()
        while users := self._leasing.to_renew():
            change = await self._store.hold(self._node, users)
            self._leasing.held(users)
            self._heard(change)

    # -- news

    def _heard(self, change: Change) -> None:
        self._note(change.came, is_there=True)
        self._note(change.went, is_there=False)

    def _note(self, users: Sequence[UserId], *, is_there: bool | None) -> None:
        due_s = self._now_s() + DEBOUNCE_S
        for user in users:
            known = self._news.pop(user, None)
            is_doubtful = known is not None and known.is_there is None
            self._news[user] = _News(None if is_doubtful else is_there, due_s)
            if len(self._news) > NEWS_MAX:
                del self._news[next(iter(self._news))]
                self.dropped_total += 1

    async def tell(self) -> None:
        """Tell the news that is due, as far as it is true.

        Raises: Unavailable: the rest is told at the next call. Cancellation: likewise; one may be told twice.
        """
        if self.is_partial and not self._is_away:
            return  # the store does not know everybody yet
        now_s, due = self._now_s(), dict[UserId, _News]()
        for user, news in self._news.items():
            if news.due_s > now_s or len(due) >= TOLD_MAX:
                break
            due[user] = news
        written = 0
        for one in await self._look(list(due)):
            if due[one.user].is_there in (None, one.is_there):
                written += await self._tell_of(one)
            if self._news.get(one.user) is due[one.user]:
                del self._news[one.user]
            if written >= LISTENERS_MAX:
                break

    async def _look(self, users: Sequence[UserId]) -> Sequence[Sighting]:
        if not users or not self._is_away:
            return await self._store.look(users) if users else []
        now_us = self._clock.now_us()
        return [Sighting(user, True) if self._leasing.is_here(user) else Sighting(user, False, now_us) for user in users]

    async def _tell_of(self, one: Sighting) -> int:
        """To how many here."""
        written = 0
        data = presence_object(one)
        if self.is_partial:
            data["partial"] = True
            self._doubtful[one.user] = None
            if len(self._doubtful) > NEWS_MAX:
                del self._doubtful[next(iter(self._doubtful))]
        for count, conversation in enumerate(await self._access.conversations_of(one.user), 1):
            channel = conversation_channel(conversation)
            written += len(self._listeners(channel))
            payload = encode({"event": "presence.changed", "channel": channel, "data": data})
            self._send(channel, Frame(payload, channel, "presence.changed"), coalesce=f"presence:{one.user}")
            if count % BREATH == 0:
                await checkpoint()
        self.told_total += 1
        return written


def presence_object(one: Sighting) -> dict[str, object]:
    """As clients read it, in answers and in events."""
    shown: dict[str, object] = {"user_id": one.user, "status": "online" if one.is_there else "offline"}
    if one.went_us is not None:
        shown["last_seen"] = rfc3339(one.went_us)
    return shown


def _batches(users: Sequence[UserId]) -> Sequence[Sequence[UserId]]:
    return [users[begin : begin + USERS_MAX] for begin in range(0, len(users), USERS_MAX)]
