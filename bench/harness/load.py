"""The load clients, driven: one process per server under load, on the other core, alive over all rounds."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from select import select

import msgspec

from bench.harness.cache import c_program
from bench.harness.plan import Plan
from bench.harness.processes import LOAD_CORE, pinned


class Spread(msgspec.Struct, frozen=True):
    """A distribution of microseconds."""

    count: int
    mean: float
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


class Opened(msgspec.Struct, frozen=True):
    ready: int
    failed: int
    connections: int
    seconds: float
    load_cpu_s: float
    error: str


class Counted(msgspec.Struct, frozen=True):
    """What one command of load.c brought. `short`: readers that did not get what they should; `gaps`: holes in a sequence."""

    sent: int
    expected: int
    deliveries: int
    frames: int
    bytes: int
    acks: int
    refused: int
    gaps: int
    closed: int
    short: int
    seconds: float
    load_cpu_s: float
    error: str
    delivered_us: Spread
    acked_us: Spread

    @property
    def wrong(self) -> str:
        """Empty when everything arrived as it should."""
        faults = {"short": self.short, "refused": self.refused, "gaps": self.gaps, "closed": self.closed}
        told = [f"{count} {name}" for name, count in faults.items() if count]
        return ", ".join(told) + (f" ({self.error})" if told and self.error else "")


class Answered(msgspec.Struct, frozen=True):
    """What one command of httpload.c brought."""

    requests: int
    failed: int
    bytes: int
    seconds: float
    load_cpu_s: float
    error: str
    latency_us: Spread


@dataclass(frozen=True, slots=True)
class Request:
    """A ready request with holes; `name` is how commands call it."""

    name: str
    method: str
    path: str
    token: str = ""
    body: str = ""
    content_bytes: int = 128

    def line(self) -> str:
        head = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1"]
        if self.token:
            head.append(f"Authorization: Bearer {self.token}")
        if self.body:
            length = len(self.body) + self.body.count("\x02") * (self.content_bytes - 1)
            head += ["Content-Type: application/json", f"Content-Length: {length}"]
        return f"request\t{self.name}\t" + "\x03".join([*head, "", self.body])


class Client:
    """One load process: a line in, a line of JSON out."""

    def __init__(self, argv: list[str], *, core: int = LOAD_CORE) -> None:
        self._popen = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pinned(core)
        )

    def tell(self, command: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(command + "\n")
        self._popen.stdin.flush()

    def hear(self) -> str:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise OSError("the load client ended")
        return line

    def answered(self, *, within_s: float) -> bool:
        """Whether `hear` would answer at once, after waiting a little."""
        assert self._popen.stdout is not None
        return bool(select([self._popen.stdout], [], [], within_s)[0])

    def close(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait()


class SocketLoad(Client):
    """`parallel`: how many handshakes may be under way at once."""

    def __init__(self, port: int, plan: Plan, *, parallel: int = 64, order: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        path = Path(self._folder.name) / "plan"
        plan.write(path)
        super().__init__([str(c_program("load")), str(port), str(path), f"parallel={parallel}", f"order={int(order)}"])

    def opened(self) -> Opened:
        """Waits until every connection is set up or has failed; to be called once, first."""
        opened = msgspec.json.decode(self.hear(), type=Opened)
        self._folder.cleanup()
        return opened

    def run(self, command: str) -> Counted:
        self.tell(command)
        return self.counted()

    def counted(self) -> Counted:
        """The outcome of the command that was told last; waits for it."""
        return msgspec.json.decode(self.hear(), type=Counted)


class HttpLoad(Client):
    def __init__(self, port: int, requests: list[Request]) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder) / "plan"
            path.write_text("".join(request.line() + "\n" for request in requests))
            super().__init__([str(c_program("httpload")), str(port), str(path)])
            self.hear()  # it has read the plan

    def run(self, command: str) -> Answered:
        self.tell(command)
        return msgspec.json.decode(self.hear(), type=Answered)
