"""What the tests against a real PostgreSQL share: plans, a lock that others wait for, and a wire that can be cut at COMMIT."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import trio

from secureconnect.backends.sql.engine import Plan
from secureconnect.testing.postgres_server import USER, PostgresServer, programs

INSERT = "INSERT INTO digests (node, epoch, number, data, at_us) VALUES ($1, 0, 0, $2, 0)"
NAMES = "SELECT node FROM digests ORDER BY node"
LOCK = 1
Cut = Literal["before", "after", "hang"]


def need_postgres() -> None:
    """Skip, or in CI fail, where there is no PostgreSQL."""
    if programs() is None:
        missing = "these tests need PostgreSQL: apt-get install postgresql"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


def insert(name: str) -> Plan[str]:
    yield INSERT, (name, b"")
    return name


def insert_all(names: Sequence[str]) -> Plan[Sequence[str]]:
    for name in names:
        yield INSERT, (name, b"")
    return [name.upper() for name in names]


def names() -> Plan[list[object]]:
    rows = yield NAMES, ()
    return [name for (name,) in rows]


def sleep(seconds: float) -> Plan[str]:
    yield "SELECT pg_sleep($1)", (seconds,)
    return "slept"


def wait_for_lock(name: str) -> Plan[str]:
    """Writes `name` once the lock of `held` is free."""
    yield "SELECT pg_advisory_xact_lock_shared($1)", (LOCK,)
    return (yield from insert(name))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a server does in its own time."""
    with trio.fail_after(15):
        while not condition():  # noqa: ASYNC110 (there is nobody who could say it)
            await trio.sleep(0.01)


@contextmanager
def held(server: PostgresServer) -> Iterator[None]:
    """Another session has the lock that `wait_for_lock` wants."""
    command: list[str | Path] = [server.program("psql"), "-X", "-q", "-A", "-t", server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        psql.stdin.write(f"SELECT pg_advisory_lock({LOCK});\n\\echo held\n")
        psql.stdin.flush()
        while psql.stdout.readline().strip() != "held":
            assert psql.poll() is None, "psql ended"
        try:
            yield
        finally:
            psql.stdin.close()


class Wire:
    """A TCP proxy in front of the server, which may fail one COMMIT."""

    def __init__(self, port: int, server: PostgresServer) -> None:
        self.url = f"postgresql://{USER}@127.0.0.1:{port}/test?sslmode=disable"
        self.cut: Cut | None = None
        """What becomes of the next COMMIT: lost before the server has it, done but never confirmed, or neither for ever."""
        self.cuts = 0
        self._server = server

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, client, server, nursery.cancel_scope)
            with_commit = False
            async for data in client:
                with_commit = b"COMMIT\0" in data and self.cut is not None
                if not with_commit:
                    await server.send_all(data)
                    continue
                cut, self.cut = self.cut, None
                self.cuts += 1
                nursery.cancel_scope.cancel()
                with trio.move_on_after(10, shield=True):
                    if cut == "hang":
                        await client.receive_some()  # until the client gives up
                    elif cut == "after":
                        await server.send_all(data)
                        await server.receive_some()
                return
            nursery.cancel_scope.cancel()

    async def _answers(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in server:
                await client.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def wire(server: PostgresServer) -> AsyncIterator[Wire]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        between = Wire(listeners[0].socket.getsockname()[1], server)
        nursery.start_soon(partial(trio.serve_listeners, between.serve, listeners))
        try:
            yield between
        finally:
            nursery.cancel_scope.cancel()
