"""One connection to PostgreSQL or CockroachDB: how it is dialled, and how a plan runs on it as a transaction.

A whole plan is one call over the bridge: its statements follow one another on asyncio's side, so a transaction costs one crossing
and not five. The caller may leave at any moment, which closes the connection; the server undoes what was open.

While it works, a server does not see that its client has left: `SETTINGS` end its part. Without them a statement left behind
would keep its locks, and its place among the server's connections.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, GeneratorType
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg
import trio

from secureconnect.backends.bridge import Bridge
from secureconnect.backends.sql.engine import Plan, Row
from secureconnect.backends.sql.postgres_errors import DRIVER, Stage, meaning
from secureconnect.errors import ConfigError
from secureconnect.resilience import Contention

T = TypeVar("T")

PORT: Final = 5432
SETTINGS: Final[Mapping[str, str]] = {
    "statement_timeout": "5000",  # ms: the longest deadline of a caller; the second line behind it
    "idle_in_transaction_session_timeout": "10000",  # ms: twice that, for a plan that stands still
    "client_connection_check_interval": "1000",  # ms: how long a statement left behind may live on (PostgreSQL 14 and later)
    "enable_seqscan": "off",  # every statement here has its index, and a scan would conflict with every writer of its table
    "jit": "off",  # compiling costs more than any of these statements, and the line above would call for it
}
"""Set at the dial, those that the server knows: no start-up parameters, which poolers and older servers refuse."""
STATEMENTS_MAX: Final = 256
"""Prepared statements kept by a connection, as in SQLite."""
DRIVER_DIAL_S: Final = 60.0
"""Longer than any caller waits: the driver's own time-out cancels, which is no cure (bridge.py)."""
KEEPALIVE_S: Final = 30
"""An idle connection whose server vanished without a word is found within about two of these."""

WRITE: Final = "BEGIN ISOLATION LEVEL SERIALIZABLE"
READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
ONE_BY_ONE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Each statement sees what was committed before it, so that who waits for a lock sees what its last holder did."""
APPLY_SETTINGS: Final = (
    "SELECT set_config(s.name, v.value, false) FROM (SELECT unnest($1::text[]) AS name, unnest($2::text[]) AS value) v "
    "JOIN pg_settings s ON s.name = v.name"
)

_several: Final[set[CodeType]] = set()
"""Reading plans that were seen to want more than one statement. There are as many as functions in this folder."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is."""

    url: str = field(repr=False)
    """As asyncpg reads it, password and all."""
    host: str
    port: int
    place: str
    """For an operator's eyes: without user and password."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises: ConfigError."""
        parts = urlsplit(url)
        if not parts.hostname or "," in parts.netloc.rpartition("@")[2]:
            raise ConfigError("SQL_URL names no host, or more than one: postgresql://USER:PASSWORD@HOST:5432/DATABASE")
        port = parts.port or PORT
        place = f"{parts.hostname}:{port}{parts.path}"
        return cls(parts._replace(scheme="postgresql").geturl(), parts.hostname, port, place)


class Connection:
    """One connection. Not for two tasks at once."""

    def __init__(self, bridge: Bridge, driver: Any, born_s: float) -> None:  # noqa: ANN401 (asyncpg has no types)
        self.born_s = born_s
        self.used_s = born_s
        """The loop's time of its last use."""
        self._bridge = bridge
        self._driver = driver

    @property
    def is_clean(self) -> bool:
        """Open, and with nothing under way: the only state in which somebody else may have it. The loop reads idle
        connections too, so one whose server hung up shows here without being asked."""
        return not self._driver.is_closed() and not self._driver.is_in_transaction()

    def abort(self) -> None:
        """Close it now, without a word. Idempotent."""
        self._driver.terminate()

    async def write(self, make: Callable[[], Plan[T]]) -> T:
        """Run a plan as a serializable transaction.

        Raises: Contention, NeverBegan, BackendDown, StorageFull, DeadlineExceeded (nothing is stored), OutcomeUnknown; what the
        plan raises. Cancellation: the connection is closed; it is stored if COMMIT had been sent and arrives.
        """
        return await self._bridge.run(self._transaction(make, WRITE), abort=self.abort)

    async def write_one_by_one(self, make: Callable[[], Plan[T]]) -> T:
        """The same, except that each statement sees what others committed before it."""
        return await self._bridge.run(self._transaction(make, ONE_BY_ONE), abort=self.abort)

    async def read(self, make: Callable[[], Plan[T]]) -> T:
        """Run a plan of SELECTs on one snapshot. Raises: NeverBegan, BackendDown, DeadlineExceeded. Cancellation: as above."""
        return await self._bridge.run(self._snapshot(make), abort=self.abort)

    async def _snapshot(self, make: Callable[[], Plan[T]]) -> T:
        """A plan of one statement needs no transaction: its snapshot is the statement's own. When it turns out to want more, it
        is made again inside one, and from then on at once."""
        plan = make()
        code = cast("GeneratorType[object, object, object]", plan).gi_code
        if code not in _several:
            try:
                text, values = next(plan)
                rows = await self._call("begin", partial(self._rows, text, values))
                plan.send(rows)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                plan.close()
            _several.add(code)
        return await self._transaction(make, READ)

    async def _transaction(self, make: Callable[[], Plan[T]], begin: str) -> T:
        await self._call("begin", partial(self._driver.execute, begin))
        try:
            result = await self._run(make())
        except BaseException:
            await self._roll_back()
            raise
        # Of a transaction that had failed, COMMIT answers ROLLBACK and no error.
        tag = await self._call("commit", partial(self._driver.execute, "COMMIT"))
        if tag != "COMMIT":
            raise Contention(f"The transaction had failed, and nobody said so ({tag}): nothing is stored")
        return result

    async def _run(self, plan: Plan[T]) -> T:
        try:
            text, values = next(plan)
            while True:
                text, values = plan.send(await self._call("work", partial(self._rows, text, values)))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            plan.close()

    async def _rows(self, text: str, values: Any) -> list[Row]:  # noqa: ANN401 (as the driver takes them)
        return [tuple(record) for record in await self._driver.fetch(text, *values)]

    async def _roll_back(self) -> None:
        if self._driver.is_closed():
            return
        try:
            await self._driver.execute("ROLLBACK")
        except DRIVER:
            self.abort()

    async def _call(self, stage: Stage, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The one place where the driver's errors become ours."""
        try:
            return await call()
        except DRIVER as error:
            named = meaning(error, stage=stage, is_open=not self._driver.is_closed())
            if named is error:
                raise
            raise named from error


class _Dialler:
    """The loop as asyncpg sees it, except that a connection begins on a socket that trio has connected already.

    So a dial is given up without asyncio's cancel: trio ends its own connect, `hang_up` ends TLS and the login. It shuts the
    socket down and does not close it: a descriptor closed under asyncio's feet is EBADF, or somebody else's by then.
    """

    def __init__(self, bridge: Bridge, connected: socket.socket) -> None:
        self._loop = bridge.loop
        self._socket = connected
        self._is_used = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the loop has)
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, *_address: Any, **options: Any) -> Any:  # noqa: ANN401 (asyncio's own)
        if self._is_used:  # `sslmode=prefer` would try again without TLS; the server's answer to the first is our answer
            raise asyncpg.ConnectionDoesNotExistError("one dial, one try")
        self._is_used = True
        return await self._loop.create_connection(factory, sock=self._socket, **options)

    def hang_up(self) -> None:
        if not self._is_used:
            self._socket.close()  # nobody else has it yet, and nobody else would
            return
        with suppress(OSError):  # the server was faster
            self._socket.shutdown(socket.SHUT_RDWR)


async def dial(bridge: Bridge, address: Address) -> Connection:
    """A new connection, its settings made. Raises: the driver's errors. Cancellation: it is given up, whatever it had reached."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    connected = socket.socket(fileno=stream.socket.detach())
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 3)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    dialler = _Dialler(bridge, connected)
    driver = await bridge.run(_login(address, dialler), abort=dialler.hang_up, spill=asyncpg.Connection.terminate)
    return Connection(bridge, driver, trio.current_time())


async def _login(address: Address, dialler: _Dialler) -> Any:  # noqa: ANN401 (asyncpg has no types)
    driver = await asyncpg.connect(
        address.url,
        loop=dialler,
        timeout=DRIVER_DIAL_S,
        statement_cache_size=STATEMENTS_MAX,
        max_cached_statement_lifetime=0,  # no timer for each prepared statement
    )
    try:
        await driver.fetch(APPLY_SETTINGS, list(SETTINGS), list(SETTINGS.values()))
    except BaseException:
        driver.terminate()
        raise
    return driver
