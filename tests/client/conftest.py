"""Both event loops, and servers to be connected to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.client.world import MakeWorld, World


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    worlds: list[World] = []

    def make(**settings: str) -> World:
        worlds.append(World(tmp_path, settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
