"""Stores that fail on demand: a thin skin around any store whose methods are async, in front of what keeps the data.

`Condition` is the state of a service, shared by all who use it: ok, or one of

* slow: every call takes 0.3 to 4 s;
* hang: no call ends by itself;
* fail: every call is refused, nothing is done;
* half: a write is done, and mostly its answer is lost; a read fails;
* zombie: a write is done seconds later, when its caller has long given up; a read hangs;
* full: every write is refused, reads are served.

`Wire` is one node's connection to everything: cut it and no call of that node does anything any more, as after a power cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import trio

from secureconnect.errors import SecureConnectError
from secureconnect.hub import HubError
from secureconnect.testing.world import World

T = TypeVar("T")
Mode = Literal["ok", "slow", "hang", "fail", "half", "zombie", "full"]
MODES: Sequence[Mode] = ("slow", "hang", "fail", "half", "zombie", "full")
LATENCY_S = (0.0005, 0.01)
"""One way of a healthy call."""
SLACK_S = 0.001


class Wire:
    """A node's connection to the outside."""

    def __init__(self) -> None:
        self.is_cut = False


class Condition:
    """How a service is doing. `refused`, `lost`: the exceptions of a call that did nothing, and of one that may have."""

    def __init__(
        self, world: World, name: str, *, refused: Callable[[], Exception], lost: Callable[[], Exception], call_s_max: float
    ) -> None:
        """`call_s_max`: no caller may wait longer for one call."""
        self.mode: Mode = "ok"
        self.bad_until_s = -1e9
        """When the last fault ended."""
        self.since_s = -1e9
        """When it became what it is."""
        self.calls: Counter[str] = Counter()
        self.longest_s = 0.0
        self.world, self.name, self.call_s_max = world, name, call_s_max
        self.refused, self.lost = refused, lost
        self.chance = world.rng(f"store {name}")

    def become(self, mode: Mode) -> None:
        """From now on; calls under way go on as they began."""
        if self.mode != "ok":
            self.bad_until_s = self.world.now()
        self.mode, self.since_s = mode, self.world.now()

    def was_bad_since(self, when_s: float) -> bool:
        """Whether there was a fault at any time from then until now."""
        return self.mode != "ok" or self.bad_until_s >= when_s

    async def latency(self) -> None:
        await trio.sleep(self.chance.uniform(*LATENCY_S))


@dataclass(slots=True)
class _Call:
    """One call of one method."""

    condition: Condition
    name: str
    do: Callable[[], Awaitable[Any]]
    is_write: bool

    async def run(self) -> object:
        condition, mode = self.condition, self.condition.mode
        condition.calls[self.name] += 1
        if mode != "ok":
            condition.world.sometimes(f"{condition.name} {mode}")
        if mode == "zombie" and self.is_write:
            condition.world.begin(self._later, condition.chance.uniform(0.5, 8.0))
        if mode in {"hang", "zombie"}:
            await trio.sleep_forever()
        if mode == "slow":
            await trio.sleep(condition.chance.uniform(0.3, 4.0))
        await condition.latency()
        if mode == "fail" or (mode == "half" and not self.is_write) or (mode == "full" and self.is_write):
            raise condition.refused()
        result = await self.do()
        if mode == "half" and condition.chance.random() < 0.7:
            raise condition.lost()
        await condition.latency()
        return result

    async def _later(self, delay_s: float) -> None:
        await trio.sleep(delay_s)
        self.condition.world.trace(self.condition.name, "zombie", self.name)
        try:
            await self.do()
        except (SecureConnectError, HubError) as error:
            self.condition.world.trace("nobody hears", type(error).__name__)


class _Faulty:
    """See `faulty`."""

    def __init__(
        self,
        target: object,
        condition: Condition,
        wire: Wire,
        writes: frozenset[str],
        learnt: Callable[..., None] | None,
        call_s_max: float,
    ) -> None:
        self._target, self._condition, self._wire, self._writes, self._learnt = target, condition, wire, writes, learnt
        self._call_s_max = call_s_max

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._target, name)

        async def call(*args: object, **named: object) -> object:
            if self._wire.is_cut:
                await trio.sleep_forever()
            condition = self._condition
            began_s = condition.world.now()
            try:
                result = await _Call(condition, name, lambda: method(*args, **named), name in self._writes).run()
            finally:
                took_s = condition.world.now() - began_s
                condition.longest_s = max(condition.longest_s, took_s)
                if took_s > self._call_s_max + SLACK_S and not self._wire.is_cut:
                    condition.world.violate("store call too long", f"{condition.name}.{name} took {took_s:.1f} s")
            if self._learnt is not None:
                self._learnt(name, args, result)
            return result

        return call


def faulty(
    target: T,
    condition: Condition,
    wire: Wire,
    *,
    writes: Iterable[str],
    learnt: Callable[[str, tuple[object, ...], object], None] | None = None,
    call_s_max: float | None = None,
) -> T:
    """`target` as one node reaches it while the service is in this condition.

    `writes`: the methods that change something. `learnt(method, args, result)` is called in the step in which a caller gets its
    answer. `call_s_max`: as the condition's, if these calls have another bound. All methods must be async.
    """
    return cast(T, _Faulty(target, condition, wire, frozenset(writes), learnt, call_s_max or condition.call_s_max))
