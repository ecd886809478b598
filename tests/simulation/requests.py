"""One HTTP request over a simulated connection of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from secureconnect.testing.simulated_network import SimulatedTransport

AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which a good client asks again."""


async def exchange(
    transport: SimulatedTransport, method: str, path: str, body: object, *, token: str
) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON of the answer. Raises: OSError."""
    content = b"" if body is None else msgspec.json.encode(body)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: sim.test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    rest = memoryview(head.encode() + content)
    while rest:
        try:
            rest = rest[transport.send_now(rest) :]
        except BlockingIOError:
            await transport.wait_writable()
    return await _answer(transport)


async def _answer(transport: SimulatedTransport) -> tuple[int, Mapping[str, Any]]:
    got = b""
    while True:
        data = await transport.receive(65_536)
        if not data:
            raise ConnectionResetError("the answer was cut off")
        got += data
        head, found, content = got.partition(b"\r\n\r\n")
        if not found:
            continue
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if len(content) >= int(headers.get("content-length", "0")):
            return int(lines[0].split()[1]), msgspec.json.decode(content) if content else {}


def error_of(status: int, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error of an answer in the form that a socket has; None: it went well."""
    if status < 300:
        return None
    found = body.get("error")
    error = dict(found) if isinstance(found, Mapping) else {"code": str(found)}
    return {**error, "retryable": status in AGAIN}
