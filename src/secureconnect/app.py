"""The composition root of a real process: opens what is real, makes one node of it, and runs it as an async context manager.

async with SecureConnect(Settings(port=0)) as server:
    print(server.url)
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import trio
from anyio import AsyncContextManagerMixin

from secureconnect.backends.bundle import Bundle, Shared
from secureconnect.backends.disk import own_disk
from secureconnect.backends.embedded import open_embedded
from secureconnect.backends.memory.bundle import memory_shared
from secureconnect.backends.policies import redis_policy
from secureconnect.backends.system import SystemClock, SystemIds, SystemRng, ThreadBlocking, kept_secret, sole_server
from secureconnect.config import Settings, load
from secureconnect.errors import ConfigError
from secureconnect.features.auth.service import Auth
from secureconnect.hub import Hub
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.server.asgi_bridge import Application, Receive, Send
from secureconnect.server.serve import Server
from secureconnect.server.transport import open_listener

SWITCH_S = 0.0005
"""How long the event loop may keep the interpreter from SQLite's writer, in bursts of pure Python. At the default of 5 ms the
writer stored 66 entries a second beside such bursts of 2 ms, at 0.5 ms 4,548."""


class SecureConnect(AsyncContextManagerMixin):
    """A whole server inside this trio program, for the length of its block.

    Raises on entering: ConfigError, BackendDown, StorageFull (the stores), OSError (the address).
    Leaving the block stops it as `stop` does.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.url = ""
        self._node: Node | None = None
        self._server: Server | None = None

    @property
    def node(self) -> Node:
        """Its parts. Only inside the block."""
        assert self._node is not None, "the server is not running"
        return self._node

    @property
    def hub(self) -> Hub:
        """For publishing and subscribing in the same process. Only inside the block."""
        return self.node.hub

    async def stop(self) -> None:
        """Drain for at most the grace, then end. Cancellation: ends at once."""
        assert self._server is not None, "the server is not running"
        self._server.stop()
        try:
            await self._server.wait_ended()
        except trio.Cancelled:
            self._server.stop()
            raise

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[SecureConnect]:
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        ports = system_ports()
        name = NodeId(f"node-{ports.ids.new()[:8]}")
        with closing(open_listener(self.settings.host, self.settings.port)) as listener, own_disk(self.settings.data_dir) as disk:
            async with (
                open_stores(self.settings, node=name, alone=True) as bundle,
                open_shared(self.settings, ports) as shared,
            ):
                self._node = Node(
                    bundle,
                    replace(ports, disk=disk),
                    self.settings,
                    secret=_secret(self.settings),
                    name=name,
                    epoch=ports.clock.now_us(),
                    shared=shared,
                    process=_process,
                )
                self.url = listener.url
                async with trio.open_nursery() as nursery:
                    self._server = await nursery.start(self._node.run, listener)
                    yield self
                    await self.stop()


class AsgiApp:
    """An ASGI 3 application that opens stores and runs a node for the length of its lifespan; `secureconnect.asgi` has one."""

    def __init__(self, settings: Settings | None = None) -> None:
        """`settings` None: from environment and file, read when the lifespan starts."""
        self._settings = settings
        self._web: Application | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self._web is not None, "the lifespan has not started: run this under a server that has one"
        await self._web(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        ports = system_ports()
        settings = self._settings or load().settings
        name = NodeId(f"asgi-{ports.ids.new()[:8]}")
        with own_disk(settings.data_dir) as disk:
            async with (
                open_stores(settings, node=name, alone=True) as bundle,
                open_shared(settings, ports) as shared,
                trio.open_nursery() as nursery,
            ):
                node = Node(bundle, replace(ports, disk=disk), settings, secret=_secret(settings), name=name,
                            epoch=ports.clock.now_us(), shared=shared, process=_process)  # fmt: skip
                await nursery.start(node.run_core)
                node.readiness.started = True
                self._web = node.web
                await send({"type": "lifespan.startup.complete"})
                await receive()
                nursery.cancel_scope.cancel()
        await send({"type": "lifespan.shutdown.complete"})


def system_ports() -> Ports:
    """The real clock, chance, ids and threads; a disk in memory, for commands."""
    return Ports(SystemClock(), SystemRng(), SystemIds(), ThreadBlocking())


@asynccontextmanager
async def open_stores(
    settings: Settings,
    *,
    node: NodeId = NodeId("command"),  # noqa: B008  # a string
    alone: bool = False,
) -> AsyncIterator[Bundle]:
    """The stores that `settings` name, with their tables up to date.

    `alone`: for a server; commands may work beside it. Two servers on one file would not hear of one another's messages, so the
    second is refused; a networked database may be away: a server waits for it, a command does not.
    Raises: ConfigError, BackendDown (another server among the reasons), StorageFull.
    """
    path = settings.sqlite_path
    if path is None:
        assert settings.sql_url is not None, "it names the server"
        distributed = _extra("postgres", "SQL_URL", "secureconnect.backends.distributed")
        limits = distributed.limits_of(settings)
        async with distributed.open_distributed(
            settings.sql_url, node=node, clock=SystemClock(), rng=SystemRng(), limits=limits, waits=alone
        ) as (bundle, _):
            yield bundle
        return
    _make_folder(path.parent)
    with sole_server(path) if alone else nullcontext():
        async with open_embedded(path, node=node, clock=SystemClock(), deadline_s=settings.store_deadline_s) as bundle:
            yield bundle


@asynccontextmanager
async def open_shared(settings: Settings, ports: Ports) -> AsyncIterator[Shared]:
    """What nodes share, over Redis or, of a single one, in memory. Raises: ConfigError."""
    if settings.redis_url is None:
        yield memory_shared(ports.clock)
        return
    between_nodes = _extra("redis", "REDIS_URL", "secureconnect.backends.between_nodes")
    async with between_nodes.open_redis(settings.redis_url, policy=redis_policy(settings), rng=ports.rng) as shared:
        yield shared


def _extra(extra: str, setting: str, module: str) -> ModuleType:
    """A part that needs libraries of its own. Raises: ConfigError, with the command that installs them."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting}: needs {error.name}, which is not installed; pip install 'secureconnect[{extra}]'"
        ) from error


@asynccontextmanager
async def open_auth(settings: Settings, *, is_new: bool = True) -> AsyncIterator[Auth]:
    """Accounts straight in the stores, for command lines; a server may run beside it. Raises: as `open_stores`.

    `is_new`: a database that is not there is made; else it is a ConfigError, for a folder's name may be mistyped.
    """
    ports = system_ports()
    path = settings.sqlite_path
    if not is_new and path is not None and not path.exists():
        raise ConfigError(f"DATA_DIR: there is no database {path}; name the folder that the server uses, with --data-dir")
    async with open_stores(settings) as bundle:
        shared = memory_shared(ports.clock)
        yield Node(bundle, ports, settings, secret=_secret(settings), name=NodeId("command"), shared=shared).auth


def _secret(settings: Settings) -> bytes:
    return (settings.secret or kept_secret(settings.data_dir)).encode()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"DATA_DIR: cannot make {folder}: {error.strerror}; give a folder that this user may write") from error


def _process() -> Mapping[str, object]:
    """Tasks, descriptors and memory of this process, now."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "fds": len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0,
        "rss_bytes": resident_pages * os.sysconf("SC_PAGE_SIZE"),
    }
