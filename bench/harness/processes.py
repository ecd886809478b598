"""Server processes on their core: start, what they cost, how much memory they hold, stop.

CPU time is read from the kernel's clock of each process in the tree (nanoseconds, threads included), not from the 10 ms ticks
of `/proc/PID/stat`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

SERVER_CORE = 0
LOAD_CORE = min(1, (os.cpu_count() or 1) - 1)  # on a machine of one core load and server share it, and the report says so
START_DEADLINE_S = 30.0

PR_SET_PDEATHSIG = 1  # prctl(2): a bench that is killed leaves no server behind
_libc = ctypes.CDLL(None)
_ports = iter(range(20_000 + os.getpid() % 1000, 32_000))  # below the kernel's range for outgoing connections


def free_port() -> int:
    """A port nobody listens on; each call another one."""
    for port in _ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise OSError("no free port between 20000 and 32000")


def pinned(core: int) -> None:
    """For the child, between fork and exec: its core, as many files as the system lets it have, and its end with ours."""
    os.sched_setaffinity(0, {core})
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def sockets_possible() -> int:
    """How many sockets one process may hold here, some left for what else is open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 300


class Process:
    """One server and all it starts. `stop()` ends it by its own id; a server that does not go is killed after 10 s."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        port: int,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        core: int = SERVER_CORE,
    ) -> None:
        self.port = port
        self.started = time.monotonic()
        self._log: IO[bytes] | None = log.open("wb") if log else None
        self._popen = subprocess.Popen(
            argv,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: pinned(core),
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_ready(self) -> None:
        """Until the port answers. Raises OSError when the process ends or 30 s pass first."""
        while time.monotonic() < self.started + START_DEADLINE_S:
            if self._popen.poll() is not None:
                raise OSError(f"ended with {self._popen.returncode} before it listened")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise OSError(f"does not listen after {START_DEADLINE_S:.0f} s")

    def cpu_s(self) -> float:
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def rss_bytes(self) -> int:
        return sum(_rss_bytes(pid) for pid in _tree(self.pid))

    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        """kill -9. Idempotent."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        if self._log:
            self._log.close()


def _tree(root: int) -> list[int]:
    pids = [root]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                pids += [int(child) for child in task.read_text().split()]
            except OSError:  # the task ended while we looked
                continue
    return pids


def _cpu_s(pid: int) -> float:
    """CLOCK of another process: CPUCLOCK_SCHED of the thread group (clock_getcpuclockid(3)). 0 for one that is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
