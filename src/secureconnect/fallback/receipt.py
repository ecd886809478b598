"""What became of everything that was kept during an outage: counted by category and cause, stored, and shown to who asks.

Each item of an outage is counted in exactly one category:

* applied: the home has it now;
* superseded: the home, or a later item, says the same or more already;
* conflicted: the home refuses it;
* expired: it was only of use until a moment that has passed;
* dropped: its rule says that it is not brought back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_args

import msgspec
import structlog

from secureconnect.errors import BackendDown
from secureconnect.fallback.outage_log import Category, Outcome
from secureconnect.ports import Disk, rfc3339

RECEIPTS_MAX: Final = 100
"""Kept on disk, about 300 bytes each. The oldest goes first."""
SHOWN_MAX: Final = 5
"""Shown in health, the newest first."""
CATEGORIES: Final[Sequence[Category]] = get_args(Category)

_log = structlog.get_logger("secureconnect.fallback")


class Receipt(msgspec.Struct, frozen=True):
    """One outage of `dependency` and what was kept in it. Wall time in microseconds; `ended_us`: when everything was done.

    `id` stays the same when the receipt is made again after a crash. `counts`: by category, then by cause.
    """

    id: str
    dependency: str
    began_us: int
    ended_us: int
    counts: dict[str, dict[str, int]]

    @property
    def kept(self) -> int:
        """Items in it; what the counts must add up to."""
        return sum(sum(causes.values()) for causes in self.counts.values())

    def total(self, category: Category) -> int:
        return sum(self.counts.get(category, {}).values())

    def show(self) -> dict[str, object]:
        """For people and programs, in JSON."""
        return {
            "id": self.id,
            "dependency": self.dependency,
            "began": rfc3339(self.began_us),
            "ended": rfc3339(self.ended_us),
            "kept": self.kept,
            **{category: self.total(category) for category in CATEGORIES},
            "causes": self.counts,
        }


def count(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """By category and cause.

    >>> count([Outcome("applied"), Outcome("superseded", "known"), Outcome("superseded", "known")])
    {'applied': {'': 1}, 'superseded': {'known': 2}}
    """
    counts: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        causes = counts.setdefault(outcome.category, {})
        causes[outcome.cause] = causes.get(outcome.cause, 0) + 1
    return counts


class Receipts:
    """The last receipts of this node, in the file `name`. Call `load` once, first; one caller of `add` at a time."""

    def __init__(self, disk: Disk, name: str = "receipts.json") -> None:
        self._disk, self._name = disk, name
        self._receipts: dict[str, Receipt] = {}

    async def load(self) -> None:
        """What was stored. A file that cannot be read is told of and begun anew: nothing is decided by receipts."""
        try:
            stored = msgspec.json.decode(await self._disk.read(self._name) or b"[]", type=list[Receipt])
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("receipts_unreadable", file=self._name, error=str(error))
            return
        self._receipts = {receipt.id: receipt for receipt in stored}

    async def add(self, receipt: Receipt) -> None:
        """Store it, in place of one with the same id, and tell the log. Raises: BackendDown, and it is not stored."""
        rest = [one for one in self._receipts.values() if one.id != receipt.id]
        receipts = [*rest, receipt][-RECEIPTS_MAX:]
        try:
            await self._disk.replace(self._name, msgspec.json.encode(receipts))
        except OSError as error:
            raise BackendDown("disk", "The receipt cannot be stored", inside=str(error)) from error
        self._receipts = {one.id: one for one in receipts}
        _log.info("outage_receipt", **receipt.show())

    @property
    def all(self) -> Sequence[Receipt]:
        """The oldest first."""
        return list(self._receipts.values())

    def show(self) -> Sequence[Mapping[str, object]]:
        """The newest few, the newest first."""
        return [receipt.show() for receipt in self.all[: -SHOWN_MAX - 1 : -1]]
