"""What REDIS_URL says: where the server is, as whom we log in, which database, and whether the way there is encrypted.

With `rediss://` the server must show a certificate for the host's name, vouched for by the file `?ssl_ca_certs=`, or without one
by the system's store. There is no way to switch that off: who is not verified may be anybody.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis.connection import SSLConnection, parse_url

from secureconnect.errors import ConfigError

DEFAULT_PORT = 6379
EXAMPLE = "redis://user:password@127.0.0.1:6379/0"
CERTIFICATES = "ssl_ca_certs"
"""The query's name for the file of certificates that we trust, as in redis-py."""


@dataclass(frozen=True, slots=True)
class Address:
    """`user` None with a password is the server's user `default`. `tls` None: the way is not encrypted."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Reads the certificates. Raises: ConfigError, also for what the parser would pass over in silence (a database that is
        no number)."""
        try:
            found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # the library has no types there
            path = urlsplit(url).path.strip("/")
        except ValueError as error:
            raise _wrong(str(error)) from None  # its context would show the password
        is_encrypted = found.pop("connection_class", None) is SSLConnection
        unknown = found.keys() - {"host", "port", "db", "username", "password"} - ({CERTIFICATES} if is_encrypted else set())
        if unknown:
            raise _wrong(f"does not know {', '.join(sorted(unknown))}")
        if "host" not in found:
            raise _wrong("names no host")
        if path and not path.isdecimal():
            raise _wrong(f"the database must be a number, not {path!r}")
        if "username" in found and "password" not in found:
            raise _wrong("names a user without a password")
        return cls(
            found["host"], found.get("port", DEFAULT_PORT), found.get("db", 0), found.get("username"), found.get("password"),
            _verifying(found.get(CERTIFICATES)) if is_encrypted else None,
        )  # fmt: skip


def _verifying(certificates: str | None) -> ssl.SSLContext:
    """Made once: it reads a file, and for the system's store over a hundred certificates."""
    try:
        context = ssl.create_default_context(cafile=certificates)
    except OSError as error:  # SSLError too: the file holds no certificate
        raise _wrong(f"{CERTIFICATES}={certificates}: {error.strerror or error}") from error
    return context


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"REDIS_URL: {why}; give one like {EXAMPLE}")
