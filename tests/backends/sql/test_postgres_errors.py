"""What each of the driver's errors is called, and that nothing of it shows to people."""

from __future__ import annotations

import asyncpg
import pytest

from secureconnect.backends.sql.postgres_connection import Address
from secureconnect.backends.sql.postgres_errors import NeverBegan, Stage, at_start, meaning
from secureconnect.errors import (
    BackendDown,
    BadRequest,
    ConfigError,
    DeadlineExceeded,
    OutcomeUnknown,
    SecureConnectError,
    StorageFull,
)
from secureconnect.resilience import Contention

TEXT = 'INSERT INTO secrets VALUES ("hunter2") at 10.0.0.7:5432 in /var/lib'


def server_says(state: str) -> asyncpg.PostgresError:
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": TEXT})
    return error


@pytest.mark.parametrize(
    ("state", "stage", "named"),
    [
        ("40001", "work", Contention),
        ("40001", "commit", Contention),
        ("40P01", "work", Contention),
        ("40003", "work", OutcomeUnknown),
        ("40003", "commit", OutcomeUnknown),
        ("57014", "work", DeadlineExceeded),
        ("53100", "work", StorageFull),
        ("53300", "dial", BackendDown),
        ("57P01", "begin", NeverBegan),
        ("57P01", "work", BackendDown),
        ("57P01", "commit", OutcomeUnknown),
        ("57P03", "dial", BackendDown),
        ("08006", "work", BackendDown),
        ("08006", "commit", OutcomeUnknown),
        ("25006", "work", BackendDown),
        ("25P03", "work", BackendDown),
        ("58030", "work", BackendDown),
        ("58030", "commit", OutcomeUnknown),
        ("XX001", "work", BackendDown),
        ("22021", "work", BadRequest),
        ("28P01", "dial", BackendDown),
    ],
)
def test_what_the_server_says_has_one_name_here(state: str, stage: Stage, named: type[SecureConnectError]) -> None:
    error = meaning(server_says(state), stage=stage, is_open=stage != "dial")
    assert type(error) is named
    assert not any(word in str(error) for word in ("hunter2", "INSERT", "10.0.0.7", "/var"))


@pytest.mark.parametrize("state", ["23505", "42601", "42P01", "22P02"])
def test_a_statements_own_fault_stays_a_bug(state: str) -> None:
    error = server_says(state)
    assert meaning(error, stage="work", is_open=True) is error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), asyncpg.InterfaceError(TEXT), asyncpg.ConnectionDoesNotExistError(TEXT)]
)
def test_a_lost_connection_is_an_outage_until_commit_and_unknown_from_there(error: Exception) -> None:
    found = [type(meaning(error, stage=stage, is_open=False)) for stage in ("dial", "begin", "work", "commit")]
    assert found == [BackendDown, NeverBegan, BackendDown, OutcomeUnknown]


def test_whatever_goes_wrong_with_a_commit_leaves_it_unknown_unless_the_server_said_no() -> None:
    for error in (asyncpg.InternalClientError(TEXT), asyncpg.InterfaceError(TEXT), TimeoutError()):
        assert type(meaning(error, stage="commit", is_open=True)) is OutcomeUnknown
    refused = server_says("23505")
    assert meaning(refused, stage="commit", is_open=True) is refused


@pytest.mark.parametrize("state", ["28000", "28P01", "3D000", "42501", "3F000"])
def test_at_the_start_what_an_operator_must_mend_says_so(state: str) -> None:
    error = at_start(server_says(state), place="db.example:5432/app")
    assert isinstance(error, ConfigError)
    assert str(error).startswith("db.example:5432/app: ")


def test_the_first_of_two_tries_to_log_in_tells_why() -> None:
    """Under `sslmode=prefer` the driver tries again without TLS, on a socket that is spent."""
    second = asyncpg.ConnectionDoesNotExistError("one dial, one try")
    second.__cause__ = server_says("28P01")
    assert isinstance(at_start(second, place="x"), ConfigError)


def test_an_address_shows_neither_user_nor_password() -> None:
    address = Address.of("cockroachdb://ada:hunter2,@db.example/app?sslmode=require")
    assert (address.host, address.port, address.place) == ("db.example", 5432, "db.example:5432/app")
    assert address.url == "postgresql://ada:hunter2,@db.example/app?sslmode=require"
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize("url", ["postgresql:///app", "postgresql://a,b/app", "postgresql://u:p,w@a:1,b:2/app"])
def test_one_host_is_needed(url: str) -> None:
    with pytest.raises(ConfigError, match="SQL_URL"):
        Address.of(url)
