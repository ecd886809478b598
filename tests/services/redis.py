"""The Redis of the tests: `secureconnect.testing`'s server, asked by a client that is not ours and found clean by each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from secureconnect.backends.redis.address import Address
from secureconnect.testing import redis_server
from secureconnect.testing.redis_server import READY_S, free_port

__all__ = ["RedisServer", "free_port", "redis_program", "running_redis"]

PROGRAMS = redis_server.PROGRAMS


class RedisServer(redis_server.RedisServer):
    """One server, empty at every start, with what tests want to ask of it."""

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def ask(self, *command: str | bytes | int) -> object:
        """One command by a client that is not ours. Raises: what redis-py raises."""
        with closing(redis.Redis(port=self.port, socket_timeout=READY_S)) as client:
            answer: object = client.execute_command(*command)  # type: ignore[no-untyped-call]  # the library has no types there
            return answer

    def clean(self) -> None:
        """As a test wants to find it: running, awake, empty, with its usual settings."""
        if not self.is_running:
            self.restart()
        self.thaw()
        self.ask("CLIENT", "UNPAUSE")
        self.ask("CONFIG", "SET", "maxmemory", 0)
        self.ask("FLUSHALL")
        self.ask("SCRIPT", "FLUSH")


def redis_program() -> str:
    """Its path. Without one the test is skipped, in CI it fails."""
    if path := redis_server.redis_program():
        return path
    why = f"none of {', '.join(PROGRAMS)} is installed (Debian: apt-get install redis-server)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def running_redis(folder: Path, **options: str) -> Iterator[RedisServer]:
    """A server for the length of the block."""
    server = RedisServer(redis_program(), folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
