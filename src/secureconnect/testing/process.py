"""A server as a process of its own, to be killed, stopped and started again on the same port and the same data."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

READY_LINES_MAX = 50
STOP_S = 45.0
"""The drain's grace of 30 s and a margin."""


class ServerProcess:
    """`secureconnect serve` with `folder` as its data directory.

    `settings` are names without their prefix (`{"SOCKETS_MAX": "20000"}`); rate limits are off unless they say otherwise.
    The log goes to `folder`'s neighbour `server.log`.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str] | None = None, dev: bool = False, port: int | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder.parent / "server.log"
        self._arguments = ["serve", "--port", str(self.port), *(["--dev"] if dev else [])]
        self._settings = {"DATA_DIR": str(folder), "RATE_LIMITS": "off", **(settings or {})}
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Returns when the server has said that it is ready. Raises: RuntimeError with the end of its log."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SECURECONNECT_")}
        environment |= {f"SECURECONNECT_{name}": value for name, value in self._settings.items()}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "secureconnect", *self._arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._process.stdout is not None
        for _ in range(READY_LINES_MAX):
            line = self._process.stdout.readline()
            if line.startswith("ready url="):
                self.url = line.strip().removeprefix("ready url=")
                return
            if not line:
                break
        self.kill()
        raise RuntimeError(f"the server ended before it was ready:\n{self.log.read_text()[-2000:]}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal and go on."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9: no goodbye. Does nothing when it is not running."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit code (0 when it was not running)."""
        return self._end(signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """The exit code, once it has ended by itself. Raises: subprocess.TimeoutExpired."""
        assert self._process is not None, "not started"
        code = self._process.wait(seconds)
        self._forget()
        return code

    def passwords(self) -> dict[str, str]:
        """Of the demo users that `dev` adds, by user name."""
        found = json.loads((self.folder / "demo.json").read_text())
        return {str(name): str(password) for name, password in found.items()}

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.wait(STOP_S)

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
