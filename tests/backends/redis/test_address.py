"""What REDIS_URL may say."""

from __future__ import annotations

import pytest

from secureconnect.backends.redis.address import Address
from secureconnect.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address("cache", 6379, 0)),
        ("redis://cache:7000/3", Address("cache", 7000, 3)),
        ("redis://cache/?db=4", Address("cache", 6379, 4)),
        ("redis://:p%40ss@cache", Address("cache", 6379, 0, None, "p@ss")),
        ("redis://ann:secret@[::1]:7000/1", Address("::1", 7000, 1, "ann", "secret")),
    ],
)
def test_a_url_says_where_as_whom_and_which_database(url: str, address: Address) -> None:
    assert Address.from_url(url) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rediss://cache", "TLS"),
        ("http://cache", "REDIS_URL"),
        ("redis://", "no host"),
        ("redis://cache/users", "must be a number"),
        ("redis://cache:seven", "REDIS_URL"),
        ("redis://cache?db=x", "db"),
        ("redis://cache?protocol=2", "protocol"),
        ("redis://ann@cache", "password"),
    ],
)
def test_what_it_cannot_mean_is_refused_and_not_passed_over(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Address.from_url(url)


def test_a_password_is_never_shown() -> None:
    address = Address.from_url("redis://ann:secret@cache/1")
    assert "secret" not in f"{address} {address!r}"
    with pytest.raises(ConfigError) as refused:
        Address.from_url("redis://ann:secret@cache/users")
    assert "secret" not in str(refused.value)
