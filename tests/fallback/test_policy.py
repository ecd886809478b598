"""The table is whole, names what exists, and is unambiguous whatever is away."""

from __future__ import annotations

from importlib import import_module
from itertools import chain, combinations

import pytest

from secureconnect.fallback import HOMES, POLICY, Effect, Home, degraded
from secureconnect.observe.status import FEATURES

EFFECTS = [effect for row in POLICY for effect in row.effects]
SUBSETS: list[tuple[Home, ...]] = list(chain.from_iterable(combinations(HOMES, count) for count in range(len(HOMES) + 1)))


@pytest.mark.parametrize("row", POLICY, ids=lambda row: row.data)
def test_each_row_names_code_that_is_there(row: object) -> None:
    keeper: str = getattr(row, "keeper")  # noqa: B009  # the row is data here
    module, _, path = keeper.partition(":")
    found: object = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert found is not None


def test_each_kind_of_data_has_one_row() -> None:
    names = [row.data for row in POLICY]
    assert sorted(dict.fromkeys(names)) == sorted(names)


def test_effects_are_of_features_that_people_know_and_of_the_rows_own_homes() -> None:
    for row in POLICY:
        for effect in row.effects:
            assert effect.feature in FEATURES
            assert [home for home in effect.without if home not in row.homes] == []
            assert effect.works


def test_what_has_no_home_is_never_away() -> None:
    assert all(row.reads == "works" and not row.effects for row in POLICY if not row.homes)


@pytest.mark.parametrize("away", SUBSETS, ids="+".join)
def test_whatever_is_away_each_feature_has_one_answer(away: tuple[Home, ...]) -> None:
    for feature, told in degraded(away).items():
        fitting = [one for one in EFFECTS if one.feature == feature and all(home in away for home in one.without)]
        longest = max(len(one.without) for one in fitting)
        assert {id(one) for one in fitting if len(one.without) == longest} == {id(told)}


def test_what_is_away_degrades_just_what_stands_on_it() -> None:
    assert sorted(degraded([])) == []
    assert sorted(degraded(["bus"])) == ["live_delivery", "typing"]
    assert sorted(degraded(["redis"])) == ["lockout", "presence", "rate_limits"]
    assert sorted(degraded(["sql"])) == ["history", "live_delivery", "login", "refresh", "send"]
    assert isinstance(degraded(["sql", "bus"])["live_delivery"], Effect)
    assert degraded(["sql", "bus"])["live_delivery"].without == ("sql", "bus")
