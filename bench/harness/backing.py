"""The servers behind ours, on the load's core: Redis and PostgreSQL, each its own on a free port."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness.cache import Missing
from bench.harness.processes import LOAD_CORE, Process, free_port
from secureconnect.testing.postgres_server import PostgresServer, programs

REDIS_OPTIONS = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning")


class Redis:
    """A server that forgets all at its end, and comes back on its port."""

    def __init__(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise Missing("redis", "apt-get install redis-server")
        self.port = free_port()
        self._argv = [program, "--port", str(self.port), *REDIS_OPTIONS]
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it listens. Raises: OSError."""
        self.process = Process(self._argv, port=self.port, core=LOAD_CORE)
        self.process.wait_ready()


@contextmanager
def redis_server() -> Iterator[Redis]:
    """Raises: Missing."""
    server = Redis()
    try:
        yield server
    finally:
        server.process.kill()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """With fsync. On this process's core, which is the load's. Raises: Missing."""
    if programs() is None:
        raise Missing("postgres", "apt-get install postgresql")
    server = PostgresServer(durable=True)
    try:
        server.create()
        yield server
    finally:
        server.remove()
