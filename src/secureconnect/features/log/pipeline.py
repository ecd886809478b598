"""The append pipeline's shell: the one way into the logs. What lanes.py decides, said to the store and to those who wait.

A requester waits for its promise and nothing else. Who runs the appends owns their tasks and deadlines (`backends/appends.py`):
it takes the calls that are `due`, has each made by `attempt` in a task of its own, says `unknown` when one attempt's time is
up, and waits with `changed` until `wake_at` for more. What follows a commit is one synchronous step of the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from secureconnect.errors import BackendDown, DeadlineExceeded, OutcomeUnknown, Unavailable
from secureconnect.features.log.draft import assert_sound
from secureconnect.features.log.lanes import Call, Lanes, Limits
from secureconnect.features.log.model import Appended, NewEntry
from secureconnect.features.log.store import EntryRefused, LogStore
from secureconnect.ids import ConversationId

OnStored = Callable[[ConversationId, Sequence[Appended]], None]


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """What waits or is under way now; how often a full lane or a full pipeline refused, since the start."""

    entries: int
    bytes: int
    calls: int
    full_total: int


class Pipeline:
    """`append` for requesters; all the rest for the one runner. `now_s`: the event loop's time.

    `on_stored` is called in the step in which the requesters learn of it, with repeated entries too.
    """

    def __init__(self, store: LogStore, on_stored: OnStored, *, now_s: Callable[[], float], limits: Limits) -> None:
        self._store = store
        self._on_stored = on_stored
        self._now_s = now_s
        self._lanes = Lanes(limits)
        self._work = anyio.Event()
        self._idle = anyio.Event()
        self._is_over = False

    async def append(
        self,
        conversation: ConversationId,
        entry: NewEntry,
        *,
        placed: Callable[[], None] | None = None,
        asked_s: float | None = None,
    ) -> Appended:
        """Wait for the entry's result. `asked_s`: when the request began, by `now_s`; its time counts from there.

        `placed`: called as soon as its place among the conversation's entries is certain.

        `duplicate` also when another request for the same key is on its way here already.
        Raises: EntryRefused; Overloaded, StorageFull, BackendDown (nothing stored); OutcomeUnknown (it goes on).
        Cancellation: the entry is taken back if its append has not begun, else it goes on without us.
        """
        assert_sound(entry)
        if self._is_over:
            raise _over()
        item = self._lanes.reserve(conversation, entry, self._now_s(), asked_s)
        promise, is_repeated = item.promise, item.begun or item.promise.requesters > 0
        self._changed()
        promise.requesters += 1
        if placed is not None:
            placed()
        try:
            await promise.answered.wait()
        finally:
            promise.requesters -= 1
            if promise.answer is None and not promise.requesters:
                self._lanes.withdraw(item)
        assert promise.answer is not None
        if not isinstance(promise.answer, Appended):
            raise promise.answer.with_traceback(None)  # one error for all requesters of a group
        return Appended(promise.answer.entry, duplicate=promise.answer.duplicate or is_repeated)

    def due(self) -> Sequence[Call]:
        """The calls to make now; each must end in `attempt` or `unknown`."""
        return self._lanes.calls(self._now_s())

    def wake_at(self) -> float:
        """The time at which to ask for `due` calls though nothing has changed; infinite when there is none."""
        return self._lanes.wake_at()

    async def changed(self) -> None:
        """Return when there may be more to do than at the last return. Cancellation: nothing is lost."""
        await self._work.wait()
        self._work = anyio.Event()

    async def attempt(self, call: Call) -> None:
        """Make the call and tell everybody. Cancellation: as if it had not been answered, so say `unknown`."""
        try:
            appended = await self._store.append(call.conversation, call.entries)
        except EntryRefused as error:
            self._lanes.refused(call, error)
        except (OutcomeUnknown, DeadlineExceeded):
            self._lanes.unknown(call, self._now_s())
        except Unavailable as error:
            self._lanes.failed(call, error, self._now_s())
        except Exception as bug:  # handed over to the requesters, whose doors log it; it must not end everybody's pipeline
            if not self._lanes.broken(call, bug):
                raise
        else:  # no await from here to the end: known, fed and published are one step
            self._lanes.stored(call, appended)
            self._on_stored(call.conversation, appended)
        self._changed()

    def unknown(self, call: Call) -> None:
        """The call was not answered in its time."""
        self._lanes.unknown(call, self._now_s())
        self._changed()

    async def drained(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self._lanes.depth:
            self._idle = anyio.Event()
            await self._idle.wait()

    def end(self) -> None:
        """No more calls will be made: answer everybody, refuse what comes."""
        self._is_over = True
        self._lanes.end(_over())

    def statistics(self) -> PipelineStatistics:
        lanes = self._lanes
        return PipelineStatistics(entries=lanes.depth, bytes=lanes.bytes, calls=lanes.under_way, full_total=lanes.full_total)

    def _changed(self) -> None:
        if self._lanes.has_more:
            self._work.set()
        if not self._lanes.depth:
            self._idle.set()


def _over() -> BackendDown:
    return BackendDown("log", "The server is stopping")
