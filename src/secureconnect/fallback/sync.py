"""Bringing home what a node decided alone: the loop that waits for the home, the rules by which things merge, the receipt.

Theory. While the home of some data is away, decisions about it are kept (`OutageLog`). When it is back, each item is brought
there by the rule of its kind, oldest first, and marked. Three things can happen in the middle, and none of them loses or
repeats anything:

* the home goes away again: the replay stops, what was brought home is marked, the rest waits for the next return;
* the process dies: what was done and not marked is done again, so a rule must do the same when it is done twice;
* a new item comes: it is brought home in the same replay.

When nothing is left, the receipt is stored and then the log forgets. A crash between the two makes the same receipt again, under
the same id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel

from secureconnect.errors import Refused, Unavailable
from secureconnect.fallback.outage_log import Item, OutageLog, Outcome
from secureconnect.fallback.receipt import Receipt, Receipts, count
from secureconnect.ports import Clock

PERIOD_S: Final = 0.5
"""Between two looks whether the home is back: it has everything within seconds, and nobody is asked more than twice a second."""
BATCH: Final = 64
"""Items brought home between two marks on the disk, and the most that a crash has done a second time."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How items of one kind are brought home.

    `bring(item)` does it, and must do the same when it is done twice; it says what became of the item. It raises Unavailable when
    the home is away (the item waits), Refused when the home does not take it (the item is conflicted).
    `newest_only`: of the items with one key only the last is brought home.
    """

    bring: Callable[[Item], Awaitable[Outcome]]
    newest_only: bool = False


def union(add: Callable[[Item], Awaitable[bool]]) -> Rule:
    """What was added anywhere is there in the end. `add` says whether it was news."""

    async def bring(item: Item) -> Outcome:
        return Outcome("applied") if await add(item) else Outcome("superseded", "known")

    return Rule(bring)


def latest(offer: Callable[[Item], Awaitable[bool]]) -> Rule:
    """The highest or latest value wins; `offer` says whether this one did."""

    async def bring(item: Item) -> Outcome:
        return Outcome("applied") if await offer(item) else Outcome("superseded", "higher there")

    return Rule(bring, newest_only=True)


def drop(cause: str) -> Rule:
    """Of no use afterwards: counted, not brought home."""

    async def bring(item: Item) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome("dropped", cause)

    return Rule(bring)


class SyncBack:
    """What this node decided about the data of one dependency, and its way home. `load` first, then `run`.

    >>> from secureconnect.testing.faulty_disk import FaultyDisk
    >>> class Noon:
    ...     def now_us(self) -> int:
    ...         return 43_200_000_000
    >>> home = {"b"}
    >>> async def add(item: Item) -> bool:
    ...     is_news = item.key not in home
    ...     home.add(item.key)
    ...     return is_news
    >>> async def main() -> None:
    ...     disk = FaultyDisk()
    ...     sync = SyncBack("sql", OutageLog(disk, "sql.outage"), Receipts(disk), {"note": union(add)}, clock=Noon())
    ...     await sync.load()
    ...     for key in "abc":
    ...         await sync.keep("note", key, b"")
    ...     receipt = await sync.replay()
    ...     print(sorted(home), receipt.counts)
    >>> anyio.run(main)
    ['a', 'b', 'c'] {'applied': {'': 2}, 'superseded': {'known': 1}}
    """

    def __init__(self, dependency: str, log: OutageLog, receipts: Receipts, rules: Mapping[str, Rule], *, clock: Clock) -> None:
        self._dependency, self._log, self._receipts, self._clock = dependency, log, receipts, clock
        self._rules = dict(rules)
        self._away_since_us: int | None = None

    async def load(self) -> None:
        """Read what an earlier run has left. Raises: BackendDown (the disk)."""
        await self._log.load()
        await self._receipts.load()

    def add_rule(self, kind: str, rule: Rule) -> None:
        """One more, before `load`: for a home that is made of what needs this."""
        self._rules[kind] = rule

    @property
    def pending(self) -> Sequence[Item]:
        """What is not home yet, the oldest first."""
        return self._log.pending

    async def keep(self, kind: str, key: str, data: bytes, *, expires_us: int | None = None) -> Item:
        """Keep a decision until it can be brought home; on return it survives a crash. Raises, cancellation: `OutageLog.keep`."""
        assert kind in self._rules, f"there is no rule for {kind}"
        return await self._log.keep(kind, key, data, at_us=self._clock.now_us(), expires_us=expires_us)

    def went_away(self) -> None:
        """The home is away: there will be a receipt, also when nothing has to be kept."""
        if self._away_since_us is None:
            self._away_since_us = self._clock.now_us()

    async def replay(self) -> Receipt | None:
        """Bring everything home. Returns the receipt; None: there was nothing to tell. One call at a time.

        Raises: Unavailable (the home, or this node's disk), with the rest kept for the next time. Cancellation: likewise.
        """
        if self._log.began is None and self._away_since_us is None:
            return None
        while todo := self._log.oldest(BATCH):
            await self._bring(todo)
        receipt = self._receipt()
        await self._receipts.add(receipt)
        await self._log.forget_done()
        self._away_since_us = None
        return receipt

    async def run(
        self,
        is_away: Callable[[], bool],
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Bring home what is kept whenever the home is not away, until cancelled."""
        task_status.started()
        while True:
            if is_away():
                self.went_away()
            else:
                with suppress(Unavailable):  # away again: the dependency's own health says why
                    await self.replay()
            await anyio.sleep(PERIOD_S)

    async def _bring(self, items: Sequence[Item]) -> None:
        """Bring these home and mark them. Raises: Unavailable, with those marked that are home."""
        outcomes: dict[int, Outcome] = {}
        failure: Unavailable | None = None
        for item in items:
            try:
                outcomes[item.number] = await self._judge(item)
            except Unavailable as error:
                failure = error
                break
        if outcomes:
            await self._log.done(outcomes)
        if failure is not None:
            raise failure

    async def _judge(self, item: Item) -> Outcome:
        rule = self._rules.get(item.kind)
        if rule is None:  # kept by another version of the program
            return Outcome("dropped", f"no rule for {item.kind}")
        if item.expires_us is not None and item.expires_us <= self._clock.now_us():
            return Outcome("expired")
        if rule.newest_only and not self._log.is_newest(item):
            return Outcome("superseded", "newer here")
        try:
            return await rule.bring(item)
        except Refused as error:
            return Outcome("conflicted", error.word)

    def _receipt(self) -> Receipt:
        outcomes, kept = self._log.outcomes, self._log.began
        began = kept.at_us if kept is not None else self._away_since_us
        assert began is not None, "there was an outage"
        return Receipt(
            id=f"{self._dependency}-{began}-{min(outcomes, default=0)}",  # of what is on the disk, where there is something
            dependency=self._dependency,
            began_us=min(began, self._away_since_us or began),
            ended_us=self._clock.now_us(),
            counts=count(outcomes.values()),
        )
