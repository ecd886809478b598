"""What the permission tests need of a running server: its operations, its two faces, and a token that has expired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from secureconnect.errors import SecureConnectError


@dataclass(frozen=True)
class Operation:
    """A row of the server's table: `path` with `:field` places; `on_socket`: its name is a method there too."""

    method: str
    path: str
    on_socket: bool


@dataclass(frozen=True)
class Reply:
    """`status` of HTTP, also of a refused handshake; over a socket 200 for a result and the status of the error's code word."""

    status: int
    data: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""


class Client(Protocol):
    """A server to ask. Every call is a connection of its own."""

    @property
    def operations(self) -> Mapping[str, Operation]: ...

    async def http(
        self, method: str, path: str, *, query: Mapping[str, str], body: Mapping[str, object] | None, token: str | None
    ) -> Reply: ...

    async def socket(self, method: str, params: Mapping[str, object], *, token: str | None) -> Reply:
        """`token` goes into the handshake's `Authorization`; None: no token and no `auth` frame."""
        ...

    def expired(self, token: str) -> str:
        """`token` as the server would have given it a day ago: good but for its age."""
        ...


def status_of(code: str) -> int:
    """The HTTP status of an error's code word, which is all that a socket's answer says. Raises: KeyError."""
    return STATUSES[code]


def _statuses(kind: type[SecureConnectError]) -> dict[str, int]:
    found = {kind.code: kind.status}
    for below in kind.__subclasses__():
        found |= _statuses(below)
    return found


STATUSES = _statuses(SecureConnectError) | {"TOKEN_EXPIRED": 401, "TOKEN_REVOKED": 401, "E2EE_BLOCKED": 403}
