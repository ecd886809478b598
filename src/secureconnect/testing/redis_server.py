"""A Redis (or Valkey) server of its own for a test or a drill: a child process on a free port, to be frozen, killed, restarted.

It is asked over a socket of its own in the plainest form of the protocol, so that no driver under test stands in between.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("redis-server", "valkey-server")
PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel hands out to outgoing connections: a killed server must be able to come back on its port."""
PORT_TRIES: Final = 20
READY_S: Final = 20.0
STOP_S: Final = 10.0
LOOK_S: Final = 0.02


def redis_program() -> str | None:
    """Its path; None: there is none on this machine."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class RedisServer:
    """One server, empty at every start. `options`: of its command line, without the dashes."""

    def __init__(self, program: str, folder: Path, **options: str) -> None:
        self.port = 0
        self._program, self._folder, self._options = program, folder, options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

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

    def say(self, *commands: str) -> list[str]:
        """Run commands, one line each, and return their answers as text. Raises: OSError when it does not answer."""
        return _say(self.port, *commands)

    def connections(self, use: str) -> list[int]:
        """The ids of our connections for this use."""
        (lines,) = self.say("CLIENT LIST")
        found = [dict(word.partition("=")[::2] for word in line.split()) for line in lines.splitlines()]
        return [int(one["id"]) for one in found if one.get("name") == f"secureconnect-{use}"]

    def cut(self, use: str) -> int:
        """End our connections for this use, from the server's side; how many there were."""
        found = self.connections(use)
        self.say(*(f"CLIENT KILL ID {connection}" for connection in found))
        return len(found)

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
        process, password = self._process, self._options.get("requirepass")
        login = [f"AUTH {password}"] if password else []

        def answers() -> bool:
            if process.poll() is not None:
                return True
            try:
                return f"process_id:{process.pid}\r\n" in _say(port, *login, "INFO server")[-1]
            except OSError:
                return False

        wait_for(answers)
        return process.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(number)


def wait_for(condition: Callable[[], bool]) -> None:
    """Look again and again until it is so. Raises: AssertionError when it does not come true."""
    give_up_at = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < give_up_at, "it does not come true"
        time.sleep(LOOK_S)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _say(port: int, *commands: str) -> list[str]:
    """Answers are a line each, or a bulk string; commands that answer with an array are none of ours."""
    with socket.create_connection(("127.0.0.1", port), timeout=READY_S) as stream, stream.makefile("rb") as answers:
        stream.sendall("".join(f"{command}\r\n" for command in commands).encode())
        found = []
        for _ in commands:
            head = answers.readline().decode()
            if not head:
                raise ConnectionError("it closed the connection")
            found.append(answers.read(int(head[1:]) + 2).decode() if head.startswith("$") else head[1:].strip())
        return found
