"""The append pipeline's core: one lane per conversation, what may be appended next, what a result means. Pure; time is passed in.

Theory. A requester only waits for its item; it never appends, feeds or publishes itself, so cancelling it separates nothing.
Per conversation there is a lane: `waiting` (reserved, not begun, may be withdrawn) and `backlog` (begun with unknown outcome:
must become known). At most one append of a lane is under way, so the order of a log is the order of arrival.

- Unknown is resolved by *appending again under the same keys*, not by looking: a look that finds nothing proves nothing while
  the first write may still land. The backlog goes on until it is known, also when every requester has gone.
- A store that refuses a group refuses one entry of it: the group is tried again one by one.
- A store that says "nothing was stored" is believed for what it was asked first; for a backlog that says nothing about the
  first write.
- A repeated key that is still here joins the same item; one that is stored is answered by the store with its first entry.
- An item's requesters are answered `total_s` after their request began, at the latest: `Overloaded` when its append has not begun
  (it is taken back), `OutcomeUnknown` when it has (it goes on).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Final

import anyio
import msgspec

from secureconnect.errors import OutcomeUnknown, Overloaded, SecureConnectError
from secureconnect.features.log.model import Appended, NewEntry
from secureconnect.ids import ConversationId


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the pipeline. A full one refuses with `Overloaded`, nothing stored."""

    calls_max: int = 256
    """Appends under way, each of another conversation. Networked stores want about 16 (their pools); SQLite commits what waits
    in one transaction, so more conversations at once mean fewer fsyncs."""
    group_max: int = 64
    """Entries of one append."""
    group_bytes_max: int = 1 << 20
    """Bytes of one append, unless its first entry alone is larger."""
    lane_max: int = 256
    """Entries of one conversation that wait or are under way."""
    bytes_max: int = 64 << 20
    """Bytes of all entries that wait or are under way."""
    total_s: float = 5.0
    """How long a requester waits for a result: one store call with all its attempts (failure-policy.md §1)."""
    retry_first_s: float = 0.1
    retry_longest_s: float = 1.0
    """Pause of a lane after an unknown outcome; it doubles."""


LIMITS: Final = Limits()

ENTRY_BYTES: Final = 512
"""What an entry costs beside its body: its objects and ids."""


@dataclass(eq=False, slots=True)
class Promise:
    """What requesters of an entry wait for. `answer` is final once it is there."""

    until_s: float
    requesters: int = 0
    answer: Appended | Exception | None = None
    answered: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, answer: Appended | Exception) -> None:
        if self.answer is None:
            self.answer = answer
            self.answered.set()


@dataclass(eq=False, slots=True)
class Item:
    """One entry on its way. `promise`: to those who ask for it now; who asks after it was answered gets a new one."""

    conversation: ConversationId
    entry: NewEntry
    promise: Promise
    begun: bool = False

    @property
    def size(self) -> int:
        return len(self.entry.data) + len(self.entry.replacement or b"") + ENTRY_BYTES


class Call(msgspec.Struct, frozen=True):
    """One append to make now. It must be answered by `stored`, `refused`, `failed` or `unknown`."""

    conversation: ConversationId
    items: Sequence[Item]

    @property
    def entries(self) -> Sequence[NewEntry]:
        return [item.entry for item in self.items]


@dataclass(slots=True)
class Lane:
    """`items`: all of the lane by key. `singly`: so many appends of one entry each, because a group was refused."""

    items: dict[str, Item] = field(default_factory=dict)
    waiting: deque[Item] = field(default_factory=deque)
    backlog: deque[Item] = field(default_factory=deque)
    storing: bool = False
    singly: int = 0
    failures: int = 0
    not_before_s: float = 0.0

    def next_items(self, limits: Limits) -> Sequence[Item]:
        """The backlog always first, and nothing new beside it."""
        group: list[Item] = []
        size = 0
        for item in self.backlog or self.waiting:
            size += item.size
            if len(group) == (1 if self.singly else limits.group_max) or (group and size > limits.group_bytes_max):
                break
            group.append(item)
        return group


class Lanes:
    """The core. Lanes exist while they have items; those that may be served stand in line for it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0
        self.depth = 0
        """Items that wait or are under way."""
        self.under_way = 0
        self.full_total = 0
        self._lanes: dict[ConversationId, Lane] = {}
        self._ready: dict[ConversationId, None] = {}  # in the order of service
        self._paused: dict[ConversationId, None] = {}
        self._unanswered: dict[Item, None] = {}
        self._times: list[tuple[float, int, Item, Promise]] = []  # a heap of their ends; what was answered is passed over
        self._promised = 0

    @property
    def has_more(self) -> bool:
        """Whether `calls` has something to make now or, after a pause, later."""
        return bool(self._ready or self._paused)

    def reserve(self, conversation: ConversationId, entry: NewEntry, now_s: float, asked_s: float | None = None) -> Item:
        """A place in the lane, or the one that this key has there already. `asked_s`: when the request began, None: now.

        Raises: Overloaded, nothing is stored.
        """
        asked_s = now_s if asked_s is None else asked_s
        lane = self._lanes.get(conversation)
        if lane is not None and entry.key in lane.items:
            return self._joined(lane.items[entry.key], asked_s)
        item = Item(conversation, entry, Promise(asked_s + self.limits.total_s))
        full = lane is not None and len(lane.items) >= self.limits.lane_max
        if full or self.bytes + item.size > self.limits.bytes_max:
            self.full_total += 1
            raise Overloaded("Too many entries wait for this log" if full else "Too many entries wait for their logs")
        if lane is None:
            lane = self._lanes[conversation] = Lane()
        lane.items[entry.key] = item
        lane.waiting.append(item)
        self.bytes += item.size
        self.depth += 1
        self._await_answer(item)
        self._line_up(conversation, lane)
        return item

    def _joined(self, item: Item, asked_s: float) -> Item:
        if item.promise.answer is not None:  # its first requesters were told that it is unknown; it still goes on
            item.promise = Promise(asked_s + self.limits.total_s)
            self._await_answer(item)
        return item

    def _await_answer(self, item: Item) -> None:
        self._unanswered[item] = None
        self._promised += 1
        heappush(self._times, (item.promise.until_s, self._promised, item, item.promise))

    def withdraw(self, item: Item) -> None:
        """The last requester left. What has not begun is taken back; what has begun goes on."""
        lane = self._lanes.get(item.conversation)
        if lane is not None and not item.begun and lane.items.get(item.entry.key) is item:
            self._forget(item.conversation, lane, (item,))

    def calls(self, now_s: float) -> Sequence[Call]:
        """The appends to begin now, the lane served last coming last again."""
        self._expire(now_s)
        for conversation in [c for c in self._paused if self._lanes[c].not_before_s <= now_s]:
            del self._paused[conversation]
            self._ready[conversation] = None
        calls: list[Call] = []
        while self._ready and self.under_way < self.limits.calls_max:
            conversation = next(iter(self._ready))
            del self._ready[conversation]
            calls.append(self._begin(conversation))
        return calls

    def wake_at(self) -> float:
        """When `calls` is due again though nothing happens: a pause is over, a requester's time is up."""
        pauses = min((self._lanes[c].not_before_s for c in self._paused), default=inf)
        return min(pauses, self._next_end_s())

    def _next_end_s(self) -> float:
        times = self._times
        while times and (times[0][3].answer is not None or times[0][2] not in self._unanswered):
            heappop(times)
        return times[0][0] if times else inf

    def stored(self, call: Call, appended: Sequence[Appended]) -> None:
        """Known: committed. The caller feeds `appended` to the hub in this same synchronous step."""
        lane = self._ended(call)
        lane.failures = 0
        for item, result in zip(call.items, appended, strict=True):
            self._settle(item, result)
        self._forget(call.conversation, lane, call.items)

    def refused(self, call: Call, error: SecureConnectError) -> None:
        """The store will never take this group."""
        lane = self._ended(call)
        lane.failures = 0
        if len(call.items) > 1:
            lane.singly = len(call.items)
            for item in call.items:
                item.begun = bool(lane.backlog)
            self._line_up(call.conversation, lane)
        else:
            self._settle(call.items[0], error)
            self._forget(call.conversation, lane, call.items)

    def failed(self, call: Call, error: SecureConnectError, now_s: float) -> None:
        """Nothing was stored by this call. That settles what it was the first for; a backlog is still unknown."""
        lane = self._lanes[call.conversation]
        if lane.backlog:
            self.unknown(call, now_s)
            return
        lane = self._ended(call)
        for item in call.items:
            self._settle(item, error)
        self._forget(call.conversation, lane, call.items)

    def broken(self, call: Call, error: Exception) -> bool:
        """A bug showed. Its requesters get it, nobody tries again. False: nobody was there to get it."""
        lane = self._ended(call)
        somebody = any(item.promise.requesters for item in call.items)
        for item in call.items:
            self._settle(item, error)
        self._forget(call.conversation, lane, call.items)
        return somebody

    def unknown(self, call: Call, now_s: float) -> None:
        """It may be stored, or may be soon: from now on it must become known."""
        lane = self._ended(call)
        if not lane.backlog:
            for item in call.items:
                lane.waiting.remove(item)
            lane.backlog.extend(call.items)
        pause = self.limits.retry_first_s * 2.0 ** min(lane.failures, 16)
        lane.failures += 1
        lane.not_before_s = now_s + min(pause, self.limits.retry_longest_s)
        self._paused[call.conversation] = None

    def end(self, error: SecureConnectError) -> None:
        """Nobody will make calls any more: answer everybody, `error` where nothing has begun."""
        for item in list(self._unanswered):
            self._settle(item, OutcomeUnknown() if item.begun else error)

    def _begin(self, conversation: ConversationId) -> Call:
        lane = self._lanes[conversation]
        call = Call(conversation, lane.next_items(self.limits))
        lane.storing = True
        lane.singly = max(0, lane.singly - 1)
        self.under_way += 1
        for item in call.items:
            item.begun = True
        return call

    def _ended(self, call: Call) -> Lane:
        lane = self._lanes[call.conversation]
        lane.storing = False
        self.under_way -= 1
        return lane

    def _expire(self, now_s: float) -> None:
        while self._next_end_s() <= now_s:
            item = heappop(self._times)[2]
            if item.begun:
                self._settle(item, OutcomeUnknown())
            else:
                self._settle(item, Overloaded("The log took nothing in time; nothing was stored"))
                self.withdraw(item)

    def _settle(self, item: Item, answer: Appended | Exception) -> None:
        self._unanswered.pop(item, None)
        item.promise.settle(answer)

    def _line_up(self, conversation: ConversationId, lane: Lane) -> None:
        if (lane.backlog or lane.waiting) and not lane.storing and conversation not in self._paused:
            self._ready[conversation] = None

    def _forget(self, conversation: ConversationId, lane: Lane, items: Sequence[Item]) -> None:
        """These are known, or taken back; the rest of the lane stands in line again."""
        for item in items:
            for line in (lane.waiting, lane.backlog):
                if item in line:
                    line.remove(item)
            del lane.items[item.entry.key]
            self.bytes -= item.size
            self.depth -= 1
            self._unanswered.pop(item, None)
        if lane.items:
            self._line_up(conversation, lane)
        elif not lane.storing:
            self._ready.pop(conversation, None)
            self._paused.pop(conversation, None)
            del self._lanes[conversation]
