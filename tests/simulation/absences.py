"""When somebody was no member of a conversation: what admins asked for and were told, by which every judgement goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.cluster import EXCUSED_S


@dataclass
class Absence:
    """Virtual seconds: when an admin first asked to remove, was told that it is done, first asked to add, was told so."""

    removing_s: float
    removed_s: float = math.inf
    adding_s: float = math.inf
    added_s: float = math.inf


@dataclass
class Absences:
    """Of one person in one conversation, in order. `sees_all`: who is added again may read what was said meanwhile."""

    sees_all: bool
    all: list[Absence] = field(default_factory=list)

    @property
    def is_away(self) -> bool:
        """Removed, or about to be, and not known to be a member again."""
        return bool(self.all) and self.all[-1].added_s == math.inf

    def may_refuse(self, now_s: float) -> bool:
        """Whether a server may say, or have said a while ago, that this is no member."""
        return bool(self.all) and now_s < self.all[-1].added_s + EXCUSED_S

    def hidden_during(self, now_s: float) -> Sequence[Absence]:
        """The absences of which nothing may be shown now."""
        return [one for one in self.all if not (self.sees_all and one.adding_s <= now_s)]
