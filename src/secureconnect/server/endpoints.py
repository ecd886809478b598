"""What an operation is: one row says all that dispatch, routes, sockets and `/openapi.json` need to know about it.

The rows themselves stand beside their features in `routes/`; app puts the table together. A row's `name` is its method on the
socket and its `operationId`; the fields of its path, query and body together are its `params`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from secureconnect.errors import SecureConnectError
from secureconnect.features.auth.model import Identity
from secureconnect.ids import RequestId

Via = Literal["http", "socket"]
Permission = Literal["public", "user", "member", "admin", "owner", "operator"]
"""Who may: anyone; a logged-in user; a member or admin of the conversation named; the thing's owner (sender, creator);
an operator (system role `admin`). Dispatch enforces the first two; the service, which knows the thing, the others."""
DeadlineClass = Literal["request", "poll", "stream"]
RateClass = Literal[
    "register", "login", "refresh", "reset", "account", "friends", "keys", "messages", "search",
    "conversations", "calls", "uploads", "notifications", "admin", "connect", "default", "none",
]  # fmt: skip
"""Classes of contract.md's limits; `none` is for health and figures, which are never limited."""


@dataclass(slots=True)
class Context:
    """Who asks, over what. `identity` is None only for `public` operations. `peer` is `host:port`."""

    via: Via
    peer: str
    request_id: RequestId
    identity: Identity | None = None
    user_agent: str = ""
    placed: Callable[[], None] | None = None
    """To be called by a row that `overlaps` in the step in which it takes its place; None where nobody waits for that."""

    @property
    def me(self) -> Identity:
        assert self.identity is not None, "the row says `public`"
        return self.identity


class Answer(msgspec.Struct, frozen=True):
    """A result that needs more than its data. `status` None: the row's. `meta` joins the envelope's."""

    data: object = None
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    meta: Mapping[str, object] = msgspec.field(default_factory=dict)


class Document(msgspec.Struct, frozen=True):
    """The whole body of a `bare` row: health, figures, schema."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


Handler: TypeAlias = Callable[[Context, Any], Awaitable[object]]
"""Takes the context and the row's params; returns an Answer, a Document (bare rows only), or the data itself:
anything msgspec encodes, `msgspec.Raw` for ready JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation. Paths write their fields as `:field`, named as in `params`.

    `result`: the type of the data, for the schema (None: no data; of a bare row: the type of the document, `str` for text).
    `errors`: what its service refuses with, beside what any row may (`openapi.COMMON`).
    `aliases`: other names of a field, used when it is absent.
    `headers`: request headers (lower case) that give a field when it is absent.
    `also`: further (method, path) pairs for old clients.
    `features`: those of `observe.status` that its answer depends on; it says which of them are degraded.
    `parallel`: on a socket runs aside instead of in turn. `overlaps`: on a socket the next of its kind may begin as soon as this
    one has its place (`Context.placed`). `bare`: answers a Document without envelope, not on sockets.
    """

    name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    params: type[msgspec.Struct]
    call: Handler
    result: Any = None
    errors: tuple[type[SecureConnectError], ...] = ()
    permission: Permission = "user"
    deadline: DeadlineClass = "request"
    rate: RateClass = "default"
    status: int = 200
    features: tuple[str, ...] = ()
    parallel: bool = False
    overlaps: bool = False
    socket: bool = True
    bare: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    also: tuple[tuple[str, str], ...] = ()
    summary: str = ""


class NoParams(msgspec.Struct):
    """For operations that take none."""
