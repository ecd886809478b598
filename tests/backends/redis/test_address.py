"""What REDIS_URL may say."""

from __future__ import annotations

import ssl
from pathlib import Path

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
        ("redis://cache?ssl_ca_certs=ca.pem", "does not know ssl_ca_certs"),
        ("rediss://cache?ssl_cert_reqs=none", "does not know ssl_cert_reqs"),
        ("rediss://cache?ssl_ca_certs=/nowhere.pem", "/nowhere.pem: No such file"),
        ("unix:///run/redis.sock", "REDIS_URL"),
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


def test_an_encrypted_way_is_always_verified() -> None:
    tls = Address.from_url("rediss://:secret@cache:7000/2").tls
    assert tls is not None
    assert (tls.check_hostname, tls.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert Address.from_url("redis://cache").tls is None


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "ca.pem"
    nothing.write_text("nothing\n")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        Address.from_url(f"rediss://cache?ssl_ca_certs={nothing}")
