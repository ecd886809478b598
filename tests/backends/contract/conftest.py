"""What the contract suites run against: each test once in memory and once on a SQLite file.

A suite makes its stores from `engine`: None means the memory implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureconnect.backends.sql.engine import Engine
from secureconnect.backends.sql.sqlite import open_sqlite


@pytest.fixture(params=["memory", "sqlite"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine | None]:
    """The database under test; None: there is none, use the memory stores."""
    if request.param == "memory":
        yield None
        return
    async with open_sqlite(tmp_path / "contract.sqlite3", synchronous="OFF") as opened:  # durability is tests/crash's matter
        yield opened
