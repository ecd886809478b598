"""A PostgreSQL of its own for a test or a drill: a child process on a free port, to be frozen, killed and started again.

PostgreSQL refuses to run as root and then wants folders of its own user; its data therefore lives in a new folder under the
system's temporary one, which `remove` deletes. As a child of this process it is reaped at once: a server whose dead predecessor
is still a zombie refuses to start.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

USER: Final = "postgres"
PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel hands out, or one could be taken while a killed server is to come back on it."""
READY_S: Final = 60.0
STOP_S: Final = 10.0
LOOK_S: Final = 0.05


def programs() -> Path | None:
    """The newest PostgreSQL on this machine: the folder with `initdb` and `postgres`; None: there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]  # Debian's place, not in PATH
    named = shutil.which("postgres")
    if found:
        return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    return Path(named).parent if named else None


class PostgresServer:
    """One server with the database `test`, whose user `postgres` needs no password.

    `settings` go to its command line; without `durable` it skips fsync, as what is not killed may.
    """

    def __init__(self, *, settings: Mapping[str, str] | None = None, durable: bool = True) -> None:
        found = programs()
        assert found is not None, "no PostgreSQL on this machine"
        self._programs = found
        self._settings = {"fsync": "on" if durable else "off", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="secureconnect-postgres-"))
        self.port = 0
        self._as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._as_user = {"user": USER, "group": USER, "extra_groups": []}
            shutil.chown(self.folder, USER, USER)

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/test?sslmode=disable"

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own: psql, pg_dump, …"""
        return self._programs / name

    def create(self) -> None:
        """Make the data folder and the database, and start."""
        initdb: list[str | Path] = [self._programs / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", USER, "--no-sync"]
        self._run([*initdb, "-E", "UTF8", "--locale=C.UTF-8"])
        self.start()
        self.sql("CREATE DATABASE test", database=USER)

    def start(self) -> None:
        """Returns when it answers. On the port that it had, else on a free one. Raises: RuntimeError with the end of its log."""
        for port in [self.port] if self.port else _free_ports(5):
            self._spawn(port)
            if self._is_ready(port):
                self.port = port
                return
            self.kill()
        raise RuntimeError(f"PostgreSQL does not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def sql(self, text: str, *, database: str = "test") -> str:
        """Run statements by psql, past everything under test; their rows, columns separated by |."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        return self._run([self._programs / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address, "-c", text]).strip()

    def freeze(self) -> None:
        """SIGSTOP to the server and all its children: nothing is refused, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of the server and its children. Does nothing when it does not run."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_S)
            self._process = None

    def stop(self) -> None:
        """As an operator restarts it: connections are ended with a word. One that will not end is killed."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self, port: int) -> None:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder), **self._settings}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self._programs / "postgres", "-D", self.folder / "data", "-p", str(port), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **self._as_user)

    def _is_ready(self, port: int) -> bool:
        """Asked by its socket in its own folder, so that nobody else's server can answer."""
        assert self._process is not None
        ask: list[str | Path] = [self._programs / "pg_isready", "-q", "-h", self.folder, "-p", str(port)]
        until_s = time.monotonic() + READY_S
        while self._process.poll() is None and time.monotonic() < until_s:
            if subprocess.run(ask, check=False).returncode == 0:
                return True
            time.sleep(LOOK_S)
        return False

    def _signal(self, number: signal.Signals) -> None:
        """To the children first, while the server is stopped: the list of them is only then complete, and no new one comes."""
        assert self._process is not None, "not started"
        os.kill(self._process.pid, signal.SIGSTOP)
        for pid in [*_children(self._process.pid), self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, command: Sequence[str | Path]) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, check=False, **self._as_user
        )
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name}: {done.stderr[-2000:]}")
        return done.stdout


def _children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(word) for word in text.split()]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, tried from a place that differs between processes."""
    found: list[int] = []
    for step in range(len(PORTS)):
        port = PORTS[(os.getpid() * 7 + step) % len(PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found
