"""Where a subscriber stands when it joins: what it asked for, judged against what there is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .history import History


@dataclass(frozen=True, slots=True)
class Place:
    """The answer to a subscription.

    `position`: the channel's end now. Recovered: what was missed up to there is replayed as ordinary events, then newer ones
    follow. Not recovered: events go on behind `position`, and what lies before is to be read elsewhere.
    `first`: the lowest position that this member may have and that is kept.
    `missed`: events between what was asked for and the end. `reset`: what was asked for lies beyond the end of the log, which
    was restored from a backup.
    """

    position: int | str
    first: int | str | None
    recovered: bool
    missed: int
    reset: bool = False


def place_in_log(after: int | str | None, *, tail: int, first: int, entries_max: int) -> tuple[Place, int]:
    """The place of a member that has everything up to `after`, and the cursor to begin with.

    `first`: the lowest number kept, and that this member may see. `entries_max`: the longest replay.
    """
    end = max(tail, first - 1)
    if after is None:
        return Place(end, first, True, 0), end
    if not isinstance(after, int):
        return Place(end, first, False, 0), end  # a position of another kind of channel
    if after > end:
        return Place(end, first, False, 0, reset=True), end
    missed = max(0, tail - after)
    if after < first - 1 or missed > entries_max:
        return Place(end, first, False, missed), end
    return Place(end, first, True, missed), after


def place_in_history(after: int | str | None, history: History) -> tuple[Place, int]:
    """Likewise in a channel that keeps its own history. Old events must have been forgotten already."""
    tail, first = history.tail, history.first
    end, lowest = history.position(tail), history.position(first)
    if after is None:
        return Place(end, lowest, True, 0), tail
    offset = history.offset(after)
    if offset is None or not first - 1 <= offset <= tail:
        return Place(end, lowest, False, 0), tail
    return Place(end, lowest, True, tail - offset), offset
