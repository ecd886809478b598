"""At most so many calls at once, and a short line in front of them: a slow dependency cannot take every task and all memory.

Callers come in lanes. A lane has permits of its own, which nobody else gets, so that one kind of work cannot starve another, and
takes part in the shared rest, which goes round among the lanes that wait. Each lane has a line of its own with a bound and a
longest wait: who would have to stand behind it is refused at once, without awaiting anything.

The core, `Lines`, is synchronous and knows no time. It keeps one promise from which the rest follows: *nobody waits who could be
admitted*. So a newcomer never overtakes a waiting caller of its lane, and whoever leaves says who comes next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from secureconnect.errors import Overloaded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lane:
    """A kind of caller. `reserved`: permits that only this lane gets. At most `waiting_max` wait, each at most `wait_s`."""

    name: str
    reserved: int
    waiting_max: int
    wait_s: float


@dataclass(eq=False, slots=True)
class Caller:
    """One call on its way through. `woken` is set when it is admitted after a wait."""

    lane: str
    is_admitted: bool = False
    woken: anyio.Event | None = None


@dataclass(slots=True)
class _Lane:
    limits: Lane
    in_use: int = 0
    waiting: dict[Caller, None] = field(default_factory=dict)


class Lines:
    """The core: who is admitted, who waits, who comes next."""

    def __init__(self, permits: int, lanes: Sequence[Lane]) -> None:
        self.permits = permits
        self.full_total = 0
        self._lanes = {lane.name: _Lane(lane) for lane in lanes}
        self._order = [lane.name for lane in lanes]  # the next one in turn for a shared permit comes first
        self._shared = permits - sum(lane.reserved for lane in lanes)
        assert self._shared >= 0, "more permits are reserved than there are"
        assert all(lane.reserved or self._shared for lane in lanes), "a lane without permits would wait for ever"

    @property
    def in_use(self) -> Mapping[str, int]:
        """Admitted callers by lane."""
        return {name: lane.in_use for name, lane in self._lanes.items()}

    @property
    def waiting(self) -> Mapping[str, int]:
        """Waiting callers by lane."""
        return {name: len(lane.waiting) for name, lane in self._lanes.items()}

    def limits(self, lane: str) -> Lane:
        return self._lanes[lane].limits

    def enter(self, lane: str) -> Caller | None:
        """A caller, admitted or waiting; None: the line is full. Whoever got one says `leave` in the end."""
        there = self._lanes[lane]
        caller = Caller(lane)
        if self._has_room(there):
            self._admit(there, caller)
        elif len(there.waiting) < there.limits.waiting_max:
            there.waiting[caller] = None
        else:
            self.full_total += 1
            return None
        return caller

    def leave(self, caller: Caller) -> Sequence[Caller]:
        """The call ended, or its caller waits no more. Returns who is admitted thereby. Once for each caller."""
        lane = self._lanes[caller.lane]
        if not caller.is_admitted:
            del lane.waiting[caller]
            return ()
        was_shared = lane.in_use > lane.limits.reserved
        lane.in_use -= 1
        self._shared += was_shared
        return self._next(None if was_shared else lane)

    def _next(self, owner: _Lane | None) -> Sequence[Caller]:
        """Whom the permit goes to that is free now: it is `owner`'s own, or shared."""
        names = self._order if owner is None else [owner.limits.name]
        for place, name in enumerate(names):
            lane = self._lanes[name]
            if lane.waiting:
                caller = next(iter(lane.waiting))
                del lane.waiting[caller]
                self._admit(lane, caller)
                if owner is None:
                    self._order = [*names[place + 1 :], *names[: place + 1]]
                return (caller,)
        return ()

    def _has_room(self, lane: _Lane) -> bool:
        return lane.in_use < lane.limits.reserved or self._shared > 0

    def _admit(self, lane: _Lane, caller: Caller) -> None:
        self._shared -= lane.in_use >= lane.limits.reserved
        lane.in_use += 1
        caller.is_admitted = True


class Bulkhead:
    """The shell: `Lines` around calls of the dependency `name`. `code`: the wire code of its refusals.

    >>> pool = Bulkhead("sql", 1, [Lane("chat", reserved=1, waiting_max=0, wait_s=1.0)], code="DB_POOL_EXHAUSTED")
    >>> async def slow() -> None:
    ...     await pool(quick, lane="chat")
    >>> async def quick() -> None: ...
    >>> try:
    ...     anyio.run(lambda: pool(slow, lane="chat"))
    ... except Overloaded as error:
    ...     print(error.word, error.retry_after_s)
    DB_POOL_EXHAUSTED 1.0
    """

    def __init__(self, name: str, permits: int, lanes: Sequence[Lane], *, code: str | None = None) -> None:
        self.name = name
        self.lines = Lines(permits, lanes)
        self.gave_up_total = 0
        self._code = code

    async def __call__(self, call: Callable[[], Awaitable[T]], *, lane: str) -> T:
        """Call when it is this caller's turn, and pass on what comes of it.

        Raises: Overloaded, at once when the line is full, after `wait_s` when the turn did not come; nothing was done.
        Cancellation: place or permit is given back.
        """
        caller = self.lines.enter(lane)
        if caller is None:
            raise self._refusal("Too many calls wait for it")
        try:
            if not caller.is_admitted:
                await self._turn(caller)
            return await call()
        finally:
            for admitted in self.lines.leave(caller):
                assert admitted.woken is not None, "who waits has an event"
                admitted.woken.set()

    async def _turn(self, caller: Caller) -> None:
        wait_s = self.lines.limits(caller.lane).wait_s
        caller.woken = anyio.Event()
        with anyio.move_on_after(wait_s):
            await caller.woken.wait()
        if not caller.is_admitted:  # else the turn came with the last moment of the wait
            self.gave_up_total += 1
            raise self._refusal(f"All its permits were busy for {wait_s:g} s")

    def _refusal(self, why: str) -> Overloaded:
        return Overloaded(f"{self.name}: {why[0].lower()}{why[1:]}", details={"dependency": self.name}, code=self._code)
