"""The short form of the drill on real servers, two nodes, real load: nothing is lost, nothing spreads, no wrong answer.

What a busy machine decides, how fast, is for `make drill` to measure, and for no test.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.backends.sql.postgres_kit import need_postgres
from tests.services.redis import redis_program

from secureconnect.drill.oracle import NO_CASCADE, NO_LOSS
from secureconnect.drill.running import SHORT, run_scenario
from secureconnect.drill.scenarios import Experiment

pytestmark = [pytest.mark.slow, pytest.mark.service]


def fell_short(experiments: Sequence[Experiment]) -> list[str]:
    return [f"{one.fault}: {check.name}: {check.evidence}" for one in experiments for check in one.checks if check.holds is False]


@pytest.mark.parametrize("scenario", ["redis", "sql"])
async def test_a_short_drill_holds(scenario: str) -> None:
    need_postgres()
    redis_program()
    experiments = await run_scenario(SHORT[scenario], told=print)
    assert len(experiments) == len(SHORT[scenario].faults)
    assert fell_short(experiments) == []
    assert all(one.holds()[aspect] for one in experiments for aspect in (NO_CASCADE, NO_LOSS)), "measured, and held"
