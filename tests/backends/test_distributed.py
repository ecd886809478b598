"""The distributed backend as production opens it: every store in its lane."""

from __future__ import annotations

import pytest

from secureconnect.backends.distributed import open_distributed
from secureconnect.backends.system import SystemClock, SystemRng
from secureconnect.features.auth.model import User
from secureconnect.ids import ConversationId, NodeId, UserId
from secureconnect.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.service


async def test_its_stores_answer_and_its_lines_show(postgres_server: PostgresServer) -> None:
    postgres_server.sql("DROP DATABASE IF EXISTS test WITH (FORCE)", database="postgres")
    postgres_server.sql("CREATE DATABASE test", database="postgres")
    async with open_distributed(postgres_server.url, node=NodeId("n"), clock=SystemClock(), rng=SystemRng()) as (
        bundle,
        database,
    ):
        ada = User(UserId("ada"), "ada@example.org", "ada", "Ada", created_us=1, updated_us=1)
        await bundle.users.add(ada, "hash")
        assert await bundle.users.user(ada.id) == ada
        assert (await bundle.directory.by_ids([ada.id]))[ada.id].username == "ada"
        assert (await bundle.log.read(ConversationId("c"), 0, 1)).head.tail == 0
        assert bundle.digests is not None
        await bundle.digests.write("n", 1, 1, b"digest")
        assert list(await bundle.digests.since({})) == [b"digest"]
        await bundle.watched.probe()
        assert sorted(bundle.queues()) == ["sql_appends", "sql_auth", "sql_background", "sql_chat"]
        assert database.statistics().stack.breaker == "closed"
    assert postgres_server.sql("SELECT node FROM probes") == "n"
