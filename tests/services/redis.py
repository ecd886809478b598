"""A Redis (or Valkey) server of the tests' own: a child process on a free port, to be frozen, killed and started again there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis

from secureconnect.backends.redis.address import Address

PROGRAMS = ("redis-server", "valkey-server")
PORTS = range(20_000, 32_000)
"""Below those that the kernel hands out to outgoing connections: a killed server must be able to come back on its port."""
PORT_TRIES = 20
READY_S = 20.0
STOP_S = 10.0


class RedisServer:
    """One server, empty at every start. `options`: of its command line, without the dashes."""

    def __init__(self, program: str, folder: Path, **options: str) -> None:
        self.port = 0
        self._program, self._folder, self._options = program, folder, options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    def start(self) -> None:
        """Returns when it answers; on the port that it had before, if it had one. Raises: RuntimeError."""
        for _ in range(PORT_TRIES):
            port = self.port or free_port()
            self._launch(port)
            if self._is_ready(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"no Redis server would start; see {self._folder}/redis.log")

    def freeze(self) -> None:
        """It accepts connections and bytes, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        """kill -9, frozen or not. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def ask(self, *command: str | bytes | int) -> object:
        """One command by a client that is not ours. Raises: what redis-py raises."""
        with closing(redis.Redis(port=self.port, socket_timeout=READY_S)) as client:
            answer: object = client.execute_command(*command)  # type: ignore[no-untyped-call]  # the library has no types there
            return answer

    def clean(self) -> None:
        """As a test wants to find it: running, awake, empty, with its usual settings."""
        if self._process is None or self._process.poll() is not None:
            self.restart()
        self.thaw()
        self.ask("CLIENT", "UNPAUSE")
        self.ask("CONFIG", "SET", "maxmemory", 0)
        self.ask("FLUSHALL")
        self.ask("SCRIPT", "FLUSH")

    def connections(self, use: str) -> list[int]:
        """The ids of our connections for this use."""
        lines = self.ask("CLIENT LIST")
        assert isinstance(lines, list)
        return [int(one["id"]) for one in lines if one["name"] == f"secureconnect-{use}"]

    def cut(self, use: str) -> None:
        """End our connections for this use, from the server's side."""
        for connection in self.connections(use):
            self.ask("CLIENT", "KILL", "ID", connection)

    def _launch(self, port: int) -> None:
        options = {
            "bind": "127.0.0.1", "port": str(port), "dir": str(self._folder), "save": "", "appendonly": "no", "daemonize": "no",
            "maxmemory-policy": "noeviction", "logfile": str(self._folder / "redis.log"), **self._options,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _is_ready(self, port: int) -> bool:
        """False when it ended: another program has the port, and may answer there as well."""
        assert self._process is not None, "not launched"
        process = self._process

        def answers() -> bool:
            if process.poll() is not None:
                return True
            try:
                with closing(redis.Redis(port=port, socket_timeout=READY_S, password=self._options.get("requirepass"))) as client:
                    return bool(client.info("server")["process_id"] == process.pid)
            except redis.ConnectionError:
                return False

        _wait(answers)
        return process.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(number)


def _wait(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < give_up_at, "it does not come true"
        time.sleep(0.02)


def free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def redis_program() -> str:
    """Its path. Without one the test is skipped, in CI it fails."""
    for name in PROGRAMS:
        if path := shutil.which(name):
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
