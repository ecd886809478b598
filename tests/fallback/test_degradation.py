"""From refusals and probes to the board, on both event loops; and when a node knows that it alone is cut off."""

from __future__ import annotations

import anyio
import pytest

from secureconnect.errors import BackendDown, Conflict
from secureconnect.fallback import Degradation, Home
from secureconnect.fallback.degradation import ALONE_S
from secureconnect.observe.status import FeatureStatus
from secureconnect.resilience import REDIS, Stack


class Now:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def opened() -> tuple[Degradation, FeatureStatus, Now]:
    board, now = FeatureStatus(), Now()
    homes: list[Home] = ["sql", "redis", "bus"]
    return Degradation(homes, board, now_s=now, now_us=lambda: round(now.seconds * 1e6)), board, now


def hold(what: Degradation, home: Home, now: Now, count: int = 3) -> None:
    for _ in range(count):
        now.seconds += 1
        what.probed(home, is_well=True, is_down=False)


@pytest.mark.anyio
async def test_who_is_refused_says_so_before_its_caller_knows() -> None:
    what, board, _ = opened()
    stack = Stack(REDIS, random=lambda: 0.5)
    what.watch_stack("redis", stack)
    seen: list[bool] = []

    async def refuse() -> None:
        await anyio.lowlevel.checkpoint()
        raise BackendDown("redis")

    async def conflict() -> None:
        await anyio.lowlevel.checkpoint()
        raise Conflict

    with pytest.raises(Conflict):
        await stack(conflict, lane="command", changes=False, is_repeatable=False)
    assert board.degraded == {}, "a refusal of its own is an answer"
    board.listen(lambda degraded: seen.append("presence" in degraded))
    with pytest.raises(BackendDown):
        await stack(refuse, lane="command", changes=False, is_repeatable=False)
    assert seen[-1]
    assert stack.refused_total == 1


def test_what_holds_again_is_told_and_keeps_what_is_still_away() -> None:
    what, board, now = opened()
    what.refused("redis")
    what.refused("bus")
    hold(what, "redis", now)
    assert sorted(board.degraded) == ["live_delivery", "typing"]
    hold(what, "bus", now)
    assert board.degraded == {}


def test_a_second_cause_keeps_the_moment_it_began() -> None:
    what, board, now = opened()
    what.refused("bus")
    began_us = board.degraded["live_delivery"].since_us
    now.seconds += 5
    what.refused("sql")
    told = board.degraded["live_delivery"]
    assert (told.since_us, told.cause) == (began_us, "sql")
    hold(what, "sql", now)
    assert board.degraded["live_delivery"].cause == "redis"


def test_one_failed_probe_proves_nothing_and_a_down_one_does() -> None:
    what, board, _ = opened()
    what.probed("redis", is_well=False, is_down=False)
    assert board.degraded == {}
    what.probed("redis", is_well=False, is_down=True)
    assert "presence" in board.degraded


def test_what_others_told_the_board_is_left_alone() -> None:
    what, board, now = opened()
    board.degrade("push", cause="fcm", works="all else", since_us=1)
    what.refused("redis")
    hold(what, "redis", now)
    assert sorted(board.degraded) == ["push"]


@pytest.mark.parametrize(
    ("others", "is_cut_off"),
    [
        ([], False),
        ([()], True),
        ([("redis",)], False),
        ([(), ("redis",)], False),
        ([("bus",), ("sql",)], True),
    ],
)
def test_a_node_is_cut_off_when_it_lacks_for_a_while_what_nobody_else_lacks(
    others: list[tuple[str, ...]], is_cut_off: bool
) -> None:
    what, _, now = opened()
    assert not what.is_cut_off(others)
    what.refused("redis")
    now.seconds += ALONE_S - 0.1
    assert not what.is_cut_off(others), "the others may not have noticed yet"
    now.seconds += 0.1
    assert what.is_cut_off(others) is is_cut_off
