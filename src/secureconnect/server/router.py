"""From method and path to the row of the table: a dict for fixed paths, a tree for those with `:field`.

A literal segment wins over a field (`/users/me` over `/users/:id`), but only where it has the method: `DELETE /users/me` may
still find `DELETE /users/:id`. HEAD is served by GET rows. One trailing slash is tolerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from secureconnect.errors import BadRequest
from secureconnect.server.endpoints import Endpoint

SEGMENTS_MAX = 16
"""A longer path is nobody's: the longest row has eight. Bounds the search below."""

Fields = Mapping[str, str]
_NO_FIELDS: Fields = {}


class Found(msgspec.Struct, frozen=True, gc=False):
    """The row, and what the path says."""

    endpoint: Endpoint
    fields: Fields


class WrongMethod(msgspec.Struct, frozen=True, gc=False):
    """The path exists, for these methods only."""

    allow: tuple[str, ...]


Methods = dict[str, tuple[Endpoint, tuple[str, ...]]]
"""Method -> (row, names of its fields in path order)."""


class _Node:
    __slots__ = ("field", "literals", "methods")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.field: _Node | None = None
        self.methods: Methods = {}


class Router:
    """The table, searchable. Immutable after it is made."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """Raises: ValueError when two rows claim one method and path, or one name."""
        self.endpoints = tuple(endpoints)
        self._fixed: dict[bytes, dict[str, Found]] = {}
        self._root = _Node()
        names: dict[str, Endpoint] = {}
        for endpoint in self.endpoints:
            if endpoint.name in names:
                raise ValueError(f"two operations are named {endpoint.name}")
            names[endpoint.name] = endpoint
            for method, path in ((endpoint.method, endpoint.path), *endpoint.also):
                self._add(endpoint, method, path)

    def find(self, method: str, path: bytes) -> Found | WrongMethod | None:
        """`path` as it came, percent-encoded. None: nobody's. Raises: BadRequest when it does not decode to clean UTF-8."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            found = fixed.get(method)
            if found is not None:
                return found
        segments = split(path)
        if segments is None:
            return None
        return self._search(method, segments)

    def _add(self, endpoint: Endpoint, method: str, path: str) -> None:
        segments = path.strip("/").split("/") if path != "/" else [""]
        node, names = self._root, []
        for segment in segments:
            if segment.startswith(":"):
                names.append(segment[1:])
                node.field = node.field or _Node()
                node = node.field
            else:
                node = node.literals.setdefault(segment, _Node())
        if method in node.methods:
            raise ValueError(f"{method} {path} is claimed twice: {node.methods[method][0].name} and {endpoint.name}")
        node.methods[method] = (endpoint, tuple(names))
        if not names:
            self._fixed.setdefault(path.encode("ascii"), {})[method] = Found(endpoint, _NO_FIELDS)

    def _search(self, method: str, segments: list[str]) -> Found | WrongMethod | None:
        wanted = (method, "GET") if method == "HEAD" else (method,)
        allow: dict[str, None] = {}
        for node, values in _nodes(self._root, segments, 0, ()):
            for name in wanted:
                if name in node.methods:
                    endpoint, names = node.methods[name]
                    return Found(endpoint, dict(zip(names, values, strict=True)))
            allow.update(dict.fromkeys(node.methods))
        if not allow:
            return None
        return WrongMethod(allowed(allow))


def allowed(methods: Mapping[str, object]) -> tuple[str, ...]:
    """What `Allow` lists for rows of these methods."""
    extra = {"HEAD": None} if "GET" in methods else {}
    return tuple({**methods, **extra, "OPTIONS": None})


def _nodes(node: _Node, segments: list[str], at: int, values: tuple[str, ...]) -> Iterator[tuple[_Node, tuple[str, ...]]]:
    """Every node with rows that the segments lead to, literal ways first."""
    if at == len(segments):
        if node.methods:
            yield node, values
        return
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        yield from _nodes(literal, segments, at + 1, values)
    if node.field is not None and segment:
        yield from _nodes(node.field, segments, at + 1, (*values, segment))


def split(path: bytes) -> list[str] | None:
    """The decoded segments; None when it cannot be a row's path. Raises: BadRequest for bytes that are not clean UTF-8."""
    if not path.startswith(b"/"):
        return None
    segments = path[1:].removesuffix(b"/").split(b"/")
    if len(segments) > SEGMENTS_MAX:
        return None
    return [decode(segment, "path") for segment in segments]


def decode(raw: bytes, place: str) -> str:
    """Percent-decoded. Raises: BadRequest naming `place` for a bad escape, bytes that are not UTF-8, or NUL."""
    if b"%" in raw:
        if any(not _is_escape(piece) for piece in raw.split(b"%")[1:]):
            raise BadRequest(f"The {place} has a percent sign that is no escape", details={"reason": f"{place}_escape"})
        raw = unquote_to_bytes(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The {place} is not UTF-8", details={"reason": f"{place}_encoding"}) from None
    if "\0" in text:
        raise BadRequest(f"The {place} has a NUL", details={"reason": f"{place}_nul"})
    return text


def _is_escape(piece: bytes) -> bool:
    return len(piece) >= 2 and piece[:1] in _HEX and piece[1:2] in _HEX


_HEX = {bytes([byte]): None for byte in b"0123456789abcdefABCDEF"}
