"""What REDIS_URL says: where the server is, as whom we log in, which database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis.connection import parse_url

from secureconnect.errors import ConfigError

DEFAULT_PORT = 6379
EXAMPLE = "redis://user:password@127.0.0.1:6379/0"


@dataclass(frozen=True, slots=True)
class Address:
    """`user` None with a password is the server's user `default`."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Raises: ConfigError, also for what the parser would pass over in silence (a database that is no number)."""
        if url.startswith("rediss://"):
            raise _wrong("TLS (rediss://) is not built yet")
        try:
            found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # the library has no types there
            path = urlsplit(url).path.strip("/")
        except ValueError as error:
            raise _wrong(str(error)) from None  # its context would show the password
        unknown = found.keys() - {"host", "port", "db", "username", "password"}
        if unknown:
            raise _wrong(f"does not know {', '.join(sorted(unknown))}")
        if "host" not in found:
            raise _wrong("names no host")
        if path and not path.isdecimal():
            raise _wrong(f"the database must be a number, not {path!r}")
        if "username" in found and "password" not in found:
            raise _wrong("names a user without a password")
        return cls(
            found["host"], found.get("port", DEFAULT_PORT), found.get("db", 0), found.get("username"), found.get("password")
        )


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"REDIS_URL: {why}; give one like {EXAMPLE}")
