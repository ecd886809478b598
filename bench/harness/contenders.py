"""Who is measured: each peer with how it starts, how it is asked, what version it is. Ours is one of them (`bench/ours.py`)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from bench.harness import cache
from bench.harness.cache import CACHE, PEERS
from bench.harness.plan import Dialect, Plan, Topology, centrifuge, plain, socketio
from bench.harness.processes import Process, free_port

FLOOR = "C, single sends"
FLOOR_JOIN = "C, joined"
OURS = "secureconnect"
CENTRIFUGO = "centrifugo's engine"


class Package(msgspec.Struct):
    """A package.json."""

    version: str


class Server(Protocol):
    """One that is up. Both processes and temporary folders go with `stop()`."""

    @property
    def process(self) -> Process: ...
    def plan(self, topology: Topology) -> Plan: ...
    def stop(self) -> None: ...


class Contender(Protocol):
    @property
    def name(self) -> str: ...
    def start(self, *, sockets: int = 1000) -> Server:
        """Up and listening, ready for so many sockets. Raises Missing."""
        ...

    def version(self) -> str:
        """Of what is measured; only asked of one that started."""
        ...


@dataclass(frozen=True, slots=True)
class PeerServer:
    process: Process
    dialect: Dialect

    def plan(self, topology: Topology) -> Plan:
        return self.dialect(topology)

    def stop(self) -> None:
        self.process.stop()


@dataclass(frozen=True, slots=True)
class Peer:
    """`command(port)` builds what is missing and gives argv and environment."""

    name: str
    command: Callable[[int], tuple[Sequence[str], Mapping[str, str]]]
    ask_version: Callable[[], str]
    dialect: Dialect = field(default=plain)

    def start(self, *, sockets: int = 1000) -> PeerServer:
        port = free_port()
        argv, env = self.command(port)
        log = CACHE / "logs" / f"{self.name.replace('/', ' ')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process = Process(argv, port=port, env=env, log=log)
        try:
            process.wait_ready()
        except OSError as error:
            process.stop()
            raise cache.Missing(self.name, f"see {log.relative_to(cache.ROOT)}", str(error)) from error
        return PeerServer(process, self.dialect)

    def version(self) -> str:
        return self.ask_version()


def floor(name: str, mode: str) -> Peer:
    return Peer(
        name, lambda port: ([str(cache.c_program("floor")), str(port), mode], {}), lambda: _first_line("gcc", "--version")
    )


def python_peer(name: str, script: str, *arguments: str, packages: str, dialect: Dialect = plain) -> Peer:
    """`packages`: those whose versions belong beside its figures."""

    def command(port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        return [cache.python(), str(PEERS / script), str(port), *arguments], {"PYTHONPATH": str(PEERS)}

    return Peer(name, command, lambda: _python_versions(packages), dialect)


def ws_on_node() -> Peer:
    def command(port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        node, env = cache.node()
        return [node, str(PEERS / "rooms_ws.js"), str(port)], env

    def version() -> str:
        node, env = cache.node()
        package = Path(env["NODE_PATH"]) / "ws" / "package.json"
        return f"ws {msgspec.json.decode(package.read_bytes(), type=Package).version}, node {_first_line(node, '--version')}"

    return Peer("ws on node", command, version)


def go_peer(name: str, program: str, dialect: Dialect = plain) -> Peer:
    def version() -> str:
        lines = (PEERS / "go" / "go.mod").read_text().splitlines()
        library = next((line.split()[-2:] for line in lines if f"/{program} " in line), [])
        return f"{' '.join(library)} {_first_line('go', 'version').split()[2]}".strip()

    return Peer(name, lambda port: ([str(cache.go_program(program)), str(port)], {}), version, dialect)


def room_peers() -> list[Peer]:
    """Those that serve rooms over WebSocket; the order is that of the tables."""
    return [
        floor(FLOOR, "single"),
        floor(FLOOR_JOIN, "join"),
        go_peer(CENTRIFUGO, "centrifuge", centrifuge),
        python_peer("picows on uvloop", "rooms_picows.py", packages="picows uvloop"),
        python_peer("aiohttp on uvloop", "rooms_aiohttp.py", packages="aiohttp uvloop"),
        python_peer("websockets broadcast on uvloop", "rooms_websockets.py", packages="websockets uvloop"),
        ws_on_node(),
        python_peer(
            "starlette on uvicorn (websockets)",
            "rooms_starlette.py",
            "websockets-sansio",
            packages="starlette uvicorn websockets",
        ),
        python_peer("starlette on uvicorn (wsproto)", "rooms_starlette.py", "wsproto", packages="starlette uvicorn wsproto"),
        python_peer("trio-websocket", "rooms_trio_websocket.py", packages="trio-websocket trio"),
        python_peer("websockets.trio", "rooms_websockets_trio.py", packages="websockets trio"),
        python_peer("python-socketio on uvicorn", "rooms_socketio.py", packages="python-socketio uvicorn", dialect=socketio),
        python_peer("quart-trio on hypercorn", "rooms_quart_trio.py", packages="quart-trio hypercorn"),
    ]


SHORT = {
    FLOOR,
    FLOOR_JOIN,
    OURS,
    CENTRIFUGO,
    "picows on uvloop",
    "aiohttp on uvloop",
    "websockets broadcast on uvloop",
    "ws on node",
}
"""The short form's: the floor, ours, and whoever could win."""


def _first_line(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _python_versions(packages: str) -> str:
    code = "import sys; from importlib.metadata import version; print(', '.join(f'{p} {version(p)}' for p in sys.argv[1:]))"
    return _first_line(cache.python(), "-c", code, *packages.split())
