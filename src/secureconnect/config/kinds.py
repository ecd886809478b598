"""What a setting's value may be: one small reader per kind, for text from the environment and values from a file or from code.

`Kind.read` takes any of the three and returns the typed value; reading a typed value returns it unchanged, so that
`Settings(…)` in code and a line in a file pass the same checks. It raises ValueError with the problem in words that fit
behind the value and never repeat it, because it may be a secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

T_co = TypeVar("T_co", covariant=True)

_ZONE = re.compile(r"[A-Za-z0-9._-]{1,32}")
"""A network interface's name or number (RFC 4007 §11)."""
_ON = frozenset({"on", "true", "yes", "1"})
_OFF = frozenset({"off", "false", "no", "0"})
SECRET_BYTES_MIN = 32
"""RFC 7518 §3.2: a key for HS256 is at least as long as its hash."""
TEXT_CHARS_MAX = 4096
LIST_ITEMS_MAX = 256


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """`words` says what fits ("a whole number from 1 to 10"); `example` is a value that does."""

    words: str
    example: str
    read: Callable[[object], T_co]


def whole(least: int, most: int, *, example: int) -> Kind[int]:
    """A whole number with a lower and an upper bound, both allowed. `_` may group digits."""
    words = f"a whole number from {least} to {most}"

    def read(raw: object) -> int:
        try:
            value = int(raw) if isinstance(raw, str) else raw
        except ValueError:
            value = None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"is not {words}")
        return value

    return Kind(words, str(example), read)


def number(least: float, most: float, *, example: float) -> Kind[float]:
    """A number, fractions allowed, with a lower and an upper bound, both allowed."""
    words = f"a number from {least:g} to {most:g}"

    def read(raw: object) -> float:
        try:
            value = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else math.nan
        except (ValueError, OverflowError):
            value = math.nan
        if not least <= value <= most:  # false for NaN too
            raise ValueError(f"is not {words}")
        return value

    return Kind(words, f"{example:g}", read)


def switch() -> Kind[bool]:
    """`on` or `off`, and the other usual spellings."""

    def read(raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        word = str(raw).strip().lower()
        if word not in _ON | _OFF:
            raise ValueError("is neither on nor off")
        return word in _ON

    return Kind("on or off", "on", read)


def choice(*words: str) -> Kind[str]:
    """One of a few words, in either case."""
    listed = ", ".join(words)

    def read(raw: object) -> str:
        word = str(raw).strip().lower()
        if word not in words:
            raise ValueError(f"is not one of {listed}")
        return word

    return Kind(f"one of {listed}", words[0], read)


def text(*, example: str) -> Kind[str]:
    """Any non-empty line."""

    def read(raw: object) -> str:
        if not isinstance(raw, str) or not raw or len(raw) > TEXT_CHARS_MAX or not raw.isprintable():
            raise ValueError(f"is not a line of 1 to {TEXT_CHARS_MAX} characters")
        return raw

    return Kind("a line of text", example, read)


def key() -> Kind[str]:
    """A secret that signs: long enough that nobody can try them all."""

    def read(raw: object) -> str:
        if not isinstance(raw, str) or len(raw.encode()) < SECRET_BYTES_MIN:
            raise ValueError(f"is shorter than {SECRET_BYTES_MIN} bytes")
        return raw

    return Kind(f"at least {SECRET_BYTES_MIN} bytes", "$(openssl rand -hex 32)", read)


def path(*, example: str) -> Kind[Path]:
    """A file or folder; relative ones count from where the program was started. `~` is the home folder."""

    def read(raw: object) -> Path:
        if isinstance(raw, Path):
            return raw
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError("is not a path")
        try:
            return Path(raw).expanduser()
        except RuntimeError:
            raise ValueError("names a home folder that is not known") from None

    return Kind("a path", example, read)


def _split(raw: object) -> SplitResult:
    if not isinstance(raw, str) or len(raw) > TEXT_CHARS_MAX or not raw.isprintable() or " " in raw:
        raise ValueError("is not a URL")
    try:
        parts = urlsplit(raw)
        _ = parts.port  # reading it checks it
    except ValueError:
        raise ValueError("is not a URL") from None  # the parser's own words may quote a password
    return parts


def url(*schemes: str, example: str, path: bool = False) -> Kind[str]:
    """A URL with one of `schemes` and a host; with `path`, a first path segment too (a database, keyspace or bucket)."""
    listed = " or ".join(f"{scheme}://" for scheme in schemes)

    def read(raw: object) -> str:
        parts = _split(raw)
        if parts.scheme not in schemes:
            raise ValueError(f"does not begin with {listed}")
        if not parts.hostname:
            raise ValueError("names no host")
        if path and not parts.path.strip("/"):
            raise ValueError("names nothing behind the host")
        return str(raw)

    return Kind(f"a URL beginning with {listed}", example, read)


def cluster_url() -> Kind[str]:
    """`cassandra://host1,host2:9042/keyspace?…`: several hosts, which no URL parser of the standard library reads."""

    def read(raw: object) -> str:
        if not isinstance(raw, str) or not raw.startswith("cassandra://") or not raw.isprintable() or " " in raw:
            raise ValueError("does not begin with cassandra://")
        hosts, _, keyspace = raw.removeprefix("cassandra://").partition("/")
        if not all(hosts.rpartition("@")[2].split(",")):
            raise ValueError("has an empty host name")
        if not keyspace.partition("?")[0]:
            raise ValueError("names no keyspace")
        return raw

    example = "cassandra://db1,db2:9042/secureconnect?datacenter=dc1&consistency=LOCAL_QUORUM"
    return Kind("a URL beginning with cassandra://", example, read)


def sql_url() -> Kind[str]:
    """`sqlite:///PATH`, or a server's URL. Three slashes and a relative path, four and an absolute one."""
    server = url("postgresql", "cockroachdb", example="", path=True)

    def read(raw: object) -> str:
        if isinstance(raw, str) and raw.startswith("sqlite:"):
            if not raw.startswith("sqlite:///") or len(raw) == len("sqlite:///") or not raw.isprintable():
                raise ValueError("is not sqlite:///PATH")
            return raw
        try:
            return server.read(raw)
        except ValueError as error:
            if "begin with" in str(error):
                raise ValueError("does not begin with sqlite:///, postgresql:// or cockroachdb://") from None
            raise

    return Kind("sqlite:///PATH, postgresql://… or cockroachdb://…", "sqlite:///data/secureconnect.db", read)


def several(one: Kind[str], *, words: str, example: str) -> Kind[tuple[str, ...]]:
    """A list of `one`: separated by commas, or a list in a file."""

    def read(raw: object) -> tuple[str, ...]:
        items = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(items, list | tuple) or len(items) > LIST_ITEMS_MAX:
            raise ValueError(f"is not a list of at most {LIST_ITEMS_MAX}, separated by commas")
        found = []
        for item in (i.strip() if isinstance(i, str) else i for i in items):
            try:
                found.append(one.read(item))
            except ValueError as error:
                raise ValueError(f"has an item {item!r} that {error}") from None
        return tuple(found)

    return Kind(words, example, read)


def network() -> Kind[str]:
    """An address or a CIDR range, IPv4 or IPv6, in its canonical text; a link-local one may name its zone (`fe80::1%eth0`)."""

    def read(raw: object) -> str:
        plain, percent, rest = str(raw).partition("%")
        zone, slash, length = rest.partition("/")
        try:
            found = ipaddress.ip_network(plain + slash + length, strict=True)
        except ValueError as error:
            raise ValueError(f"is not an address or CIDR range ({error})") from None
        if percent and not (_ZONE.fullmatch(zone) and found.version == 6 and found.is_link_local):
            raise ValueError("names a zone, which only a link-local IPv6 address has, as in fe80::1%eth0")
        return str(found) if not percent else str(found).replace("/", f"%{zone}/")

    return Kind("an address or CIDR range", "10.0.0.0/8", read)


def origin() -> Kind[str]:
    """A web origin (RFC 6454 §6.2): scheme, host, port; or `*` for any."""
    plain = url("http", "https", example="https://chat.example.org")

    def read(raw: object) -> str:
        if raw == "*":
            return "*"
        value = plain.read(raw)
        if urlsplit(value).path or urlsplit(value).query:
            raise ValueError("has something behind the host; an origin ends there")
        return value

    return Kind("an origin", plain.example, read)


def upstream(roles: tuple[str, ...]) -> Kind[str]:
    """`role=http://host:port`."""
    target = url("http", "https", example="")

    def read(raw: object) -> str:
        role, equals, value = str(raw).partition("=")
        if not equals or role not in roles:
            raise ValueError(f"does not begin with one of {', '.join(f'{r}=' for r in roles)}")
        return f"{role}={target.read(value)}"

    return Kind("role=URL", "chat=http://127.0.0.1:8081", read)
