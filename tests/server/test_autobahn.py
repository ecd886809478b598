"""Autobahn's own cases, run by kosoku, against an echo made of the gateway's classes behind the real front.

Whatever is not listed here with its reason must be OK. 12 and 13 are about compression, which is not negotiated.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from subprocess import DEVNULL

import msgspec
import pytest
import trio
from tests.server.socket_kit import Ids, Tokens

from secureconnect.ids import RequestId
from secureconnect.ports import Transport
from secureconnect.server.connection import Connection, Shared
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.exchange import Exchange
from secureconnect.server.front import Front
from secureconnect.server.router import Router
from secureconnect.server.transport import open_listener
from secureconnect.server.websocket_frames import BINARY, TEXT, server_frame
from secureconnect.server.websocket_handshake import HandshakeRequest, acceptance
from secureconnect.server.websocket_limits import Counters, GatewayLimits
from secureconnect.server.websocket_timers import Timers

LARGE = GatewayLimits(message_bytes_max=32 << 20, outbox_bytes_max=64 << 20)
"""9.* sends messages of 16 MiB."""
LATE_UTF8 = "bad text inside one frame is found when the frame is whole, not at its first bad byte: checked in one pass"
FRAGMENTS = "a message in 65,536 or 16,384 fragments is refused with 1009: more than 4,096 are an attack"
EXPECTED = {
    "6.4.3": ("NON-STRICT", LATE_UTF8),
    "6.4.4": ("NON-STRICT", LATE_UTF8),
    "7.1.6": ("INFORMATIONAL", "what happens to a large message in front of a close"),
    "7.13.1": ("INFORMATIONAL", "how a close code of 5000 is answered"),
    "7.13.2": ("INFORMATIONAL", "how a close code of 65535 is answered"),
    "9.3.1": ("FAILED", FRAGMENTS),
    "9.3.2": ("FAILED", FRAGMENTS),
    "9.4.1": ("FAILED", FRAGMENTS),
    "9.4.2": ("FAILED", FRAGMENTS),
}


class Echo:
    """A receiver that says everything again."""

    def __init__(self, transport: Transport, shared: Shared) -> None:
        self.connection = Connection(transport, shared, self)

    def received(self, payload: bytes, *, is_text: bool) -> bool:
        self.connection.push(server_frame(TEXT if is_text else BINARY, payload))
        return True

    async def caught_up(self) -> None:
        raise AssertionError("it is never behind")

    def due(self, now_s: float) -> float:
        return math.inf

    def ended(self) -> None:
        pass


class EchoGateway:
    """Takes every path."""

    def __init__(self, nursery: trio.Nursery) -> None:
        timers = Timers()
        nursery.start_soon(timers.run)
        self._nursery = nursery
        self._shared = Shared(LARGE, timers, Counters(), self._begin)

    def is_socket_path(self, path: str) -> bool:
        return True

    async def serve(self, request: HandshakeRequest, transport: Transport, rest: bytes) -> bool:
        connection = Echo(transport, self._shared).connection
        connection.push(acceptance(request, RequestId("r")))
        connection.unread(rest)
        try:
            await connection.serve()
        finally:
            connection.release()
        return True

    def _begin(self, connection: Connection, work: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(work)


async def verdicts(cases: list[str], directory: Path) -> dict[str, tuple[str, str]]:
    """(behaviour, behaviour of the close) of each case."""
    tokens = Tokens()
    async with trio.open_nursery() as nursery:
        exchange = Exchange(Router([]), Dispatcher(), authenticate=tokens.authenticate, clock=tokens.clock, ids=Ids())
        front = Front(exchange, gateway=EchoGateway(nursery), web=None, clock=tokens.clock)
        listener = open_listener("127.0.0.1", 0)

        async def accept() -> None:
            while True:
                nursery.start_soon(front.serve_connection, await listener.accept())

        nursery.start_soon(accept)
        included = [word for case in cases for word in ("-i", case)]
        command = [
            sys.executable,
            "-c",
            "import kosoku._cli as c, sys; sys.exit(c.main())",
            "-m",
            "fuzzingclient",
            "-o",
            str(directory),
            "-p",
            "2",
            *included,
        ]
        await trio.run_process(
            [*command, f"ws://127.0.0.1:{listener.port}"], check=False, stdout=DEVNULL
        )  # it fails when a case does
        nursery.cancel_scope.cancel()
    listener.close()
    report = msgspec.json.decode(await trio.Path(directory, "index.json").read_bytes())
    (results,) = report.values()
    return {case: (found["behavior"], found["behaviorClose"]) for case, found in results.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cases", "count"), [(["1.*", "2.*", "3.*", "4.*", "5.*"], 64), (["6.*"], 145), (["7.*", "10.*"], 38), (["9.*"], 54)]
)
async def test_every_case_is_ok_but_for_those_listed(cases: list[str], count: int, tmp_path: Path) -> None:
    with trio.fail_after(60):
        found = await verdicts(cases, tmp_path)
    assert len(found) == count
    odd = {case: behaviour for case, (behaviour, close) in found.items() if (behaviour, close) != ("OK", "OK")}
    assert odd == {case: verdict for case, (verdict, _) in EXPECTED.items() if case in found}
