"""The short form of the drill on real servers, two nodes and real load: nothing that can be measured falls short."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.backends.sql.postgres_kit import need_postgres
from tests.services.redis import redis_program

from secureconnect.drill.running import SHORT, run_scenario
from secureconnect.drill.scenarios import Experiment

pytestmark = [pytest.mark.slow, pytest.mark.service]


def fell_short(experiments: Sequence[Experiment]) -> list[str]:
    return [f"{one.fault}: {check.name}: {check.evidence}" for one in experiments for check in one.checks if check.holds is False]


@pytest.mark.parametrize("scenario", ["redis", "sql"])
async def test_a_short_drill_holds(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    need_postgres()
    redis_program()
    experiments = await run_scenario(SHORT[scenario], told=print)
    assert len(experiments) == len(SHORT[scenario].faults)
    assert fell_short(experiments) == []
    assert all(sum(check.holds is not None for check in one.checks) >= 14 for one in experiments)
