"""What the permission tests need of a running server: its operations, its two faces, and a token that has expired.

Every HTTP answer is held against the server's own description of itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has none
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

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


class Documented:
    """`/openapi.json` as what it promises: the status and the shape of every answer."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.answered: set[tuple[str, int]] = set()
        """(path template, status) that were checked."""
        self._document = document
        whole = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource("urn:document", whole)

    def check(self, method: str, path: str, status: int, body: object) -> None:
        """Raises: AssertionError for an answer that the document does not know."""
        template = self._template(method, path)
        responses = self._document["paths"][template][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {path} answered {status}, which is not documented"
        content = responses[str(status)]["content"]
        schema = content.get("application/json" if isinstance(body, dict) else "text/plain")
        assert schema is not None, f"{method} {path} {status}: {list(content)} is documented"
        validator = Draft202012Validator(_absolute(schema["schema"]), registry=self._registry)
        problems = [f"{list(error.path)} {error.message[:200]}" for error in validator.iter_errors(body)]
        assert problems == [], f"{method} {path} {status}"
        self.answered.add((template, status))

    def _template(self, method: str, path: str) -> str:
        found: list[str] = [
            template
            for template, operations in self._document["paths"].items()
            if method.lower() in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
        ]
        return min(found, key=lambda template: template.count("{"))


def _absolute(schema: Any) -> Any:  # noqa: ANN401  # JSON
    """References into the document, as a registry resolves them."""
    if isinstance(schema, dict):
        return {
            key: f"urn:document{value}" if key == "$ref" and value.startswith("#") else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema


class Client(Protocol):
    """A server to ask. Every call is a connection of its own."""

    documented: Documented

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
