from __future__ import annotations

import pytest
from tests.features.conversations.kit import World, open_world


@pytest.fixture
async def world() -> World:
    return await open_world()
