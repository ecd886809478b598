"""Settings in code: every instance that exists fits, and one that does not fit says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.backends.policies import sql_policy
from secureconnect.config import ROWS, Settings, not_built, without_effect
from secureconnect.config.row import Row
from secureconnect.errors import ConfigError
from secureconnect.resilience import Stack
from secureconnect.server.origins import TrustedProxies

SECRET = "s" * 32
INTERFACE = [
    "DATA_DIR", "HOST", "PORT", "SECRET", "PUBLIC_URL", "ORIGINS", "TRUSTED_PROXIES", "TLS_CERT", "TLS_KEY", "SQL_URL",
    "REDIS_URL", "CASSANDRA_URL", "S3_URL", "SMTP_URL", "FCM_CREDENTIALS_FILE", "APNS_KEY_FILE", "APNS_KEY_ID",
    "APNS_TEAM_ID", "APNS_TOPIC", "WEBPUSH_PRIVATE_KEY_FILE", "AI_URL", "AI_KEY", "AI_MODEL", "TURN_URLS", "TURN_SECRET",
    "SFU_URL", "FCM_URL", "APNS_URL", "WEBPUSH_ALLOW_PRIVATE", "ROLES", "UPSTREAMS", "METRICS_TOKEN", "OTLP_URL",
    "RATE_LIMITS", "ACCESS_TOKEN_S", "REFRESH_TOKEN_S", "SESSIONS_PER_USER_MAX", "CALL_RING_S", "SEND_MODE",
    "JOURNAL_BYTES_MAX", "REPLAY_ENTRIES_MAX", "REQUEST_BODY_BYTES_MAX", "REQUEST_DEADLINE_S", "STORE_DEADLINE_S",
    "WRITE_DEADLINE_S", "SOCKETS_MAX", "CHANNEL_QUEUE_MAX", "OUTBOX_MESSAGES_MAX", "OUTBOX_BYTES_MAX", "SQL_POOL_MAX",
]  # fmt: skip
CLASSES = [
    "register", "login", "refresh", "reset", "account", "friends", "keys", "messages", "search", "conversations", "calls",
    "uploads", "notifications", "admin", "connect", "default",
]  # fmt: skip


def problems(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    found = error.value.details["problems"]
    assert isinstance(found, list)
    return [str(one) for one in found]


def test_every_setting_of_the_interface_exists() -> None:
    names = {row.name for row in ROWS}
    assert [name for name in INTERFACE if name not in names] == []
    assert [name for name in CLASSES if f"RATE_{name.upper()}_PER_MIN" not in names] == []


def test_nothing_needs_to_be_set() -> None:
    settings = Settings()
    assert settings.port == 8080
    assert settings.sqlite_path == Path("data/secureconnect.db")
    assert not_built(settings) == []
    assert without_effect(settings) == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_default_fits_its_own_kind_and_every_row_is_explained(row: Row) -> None:
    if row.default is not None:
        assert row.kind.read(row.default) == row.default
    assert row.help.endswith(".")
    assert row.kind.words


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_example_fits(row: Row) -> None:
    """An example in an error message that is itself an error would be worse than none."""
    if row.name != "SECRET":  # its example is a shell's command that makes one
        row.kind.read(row.kind.example)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "http", "'http' is not a whole number from 0 to 65535; for example SECURECONNECT_PORT=8080"),
        ("port", 65536, "65536 is not a whole number"),
        ("port", True, "True is not a whole number"),
        ("request_deadline_s", "nan", "'nan' is not a number from 0.1 to 600"),
        ("request_deadline_s", "inf", "'inf' is not a number"),
        ("rate_limits", "maybe", "'maybe' is neither on nor off"),
        ("log_level", "loud", "'loud' is not one of info, debug, warning, error"),
        ("host", "", "'' is not a line of 1 to 4096 characters"),
        ("trusted_proxies", "10.0.0.1/8", "has an item '10.0.0.1/8' that is not an address or CIDR range"),
        ("trusted_proxies", "::1%lo", "names a zone, which only a link-local IPv6 address has, as in fe80::1%eth0"),
        ("trusted_proxies", "10.0.0.1%eth0", "names a zone"),
        ("trusted_proxies", "fe80::1%", "names a zone"),
        ("trusted_proxies", "fe80::1%a b", "names a zone"),
        ("origins", "https://a.example/path", "has something behind the host"),
        ("upstreams", "chat", "does not begin with one of auth=, chat="),
        ("roles", "chat,chess", "has an item 'chess' that is not one of all"),
        ("sql_url", "mysql://h/d", "does not begin with sqlite:///, postgresql:// or cockroachdb://"),
        ("sql_url", "sqlite://data.db", "is not sqlite:///PATH"),
        ("sql_url", "postgresql://host", "names nothing behind the host"),
        ("cassandra_url", "cassandra://a,,b/k", "has an empty host name"),
        ("cassandra_url", "cassandra://a:9042", "names no keyspace"),
        ("s3_url", "https://h/b", "does not begin with s3://"),
        ("secret", "short", "is shorter than 32 bytes"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_its_problem_and_an_example(name: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(**{name: value})  # type: ignore[arg-type]  # wrong on purpose
    (problem,) = problems(error)
    assert problem.startswith(f"{name.upper()}: ")
    assert said in problem
    assert f"; for example SECURECONNECT_{name.upper()}=" in problem


@pytest.mark.parametrize(
    ("given", "kept"), [("fe80::1%eth0", "fe80::1%eth0/128"), ("fe80::%br-lan.1/64", "fe80::%br-lan.1/64"), ("::1", "::1/128")]
)
def test_a_proxy_on_the_own_link_may_be_named_with_its_zone(given: str, kept: str) -> None:
    assert Settings(trusted_proxies=(given,)).trusted_proxies == (kept,)
    assert Settings(trusted_proxies=(kept,)).trusted_proxies == (kept,)
    TrustedProxies([kept])  # what the setting takes, the server does


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Settings(port=-1, sockets_max=0, log_level="loud")
    assert [one.partition(":")[0] for one in problems(error)] == ["PORT", "LOG_LEVEL", "SOCKETS_MAX"]
    assert str(error.value).endswith("(and 2 more)")


@pytest.mark.parametrize("name", [row.name.lower() for row in ROWS if row.secret != "no"])
def test_secrets_are_neither_in_the_repr_nor_in_an_error(name: str) -> None:
    row = next(row for row in ROWS if row.field == name)
    value = row.kind.example + "/do-not-show-" * 4
    settings = Settings(**{"secret": SECRET, name: value})  # type: ignore[arg-type]  # all secrets are texts
    assert "do-not-show" not in repr(settings)
    with pytest.raises(ConfigError) as error:
        Settings(**{name: "\0do-not-show"})  # type: ignore[arg-type]  # wrong on purpose
    assert "do-not-show" not in " ".join(problems(error))


@pytest.mark.parametrize("url", ["redis://:pa/ss@host:6379", "s3://key:se/cret@host/b", "postgresql://u:p/w@h/d"])
def test_a_password_that_breaks_its_url_is_not_quoted(url: str) -> None:
    """The standard library's error for `:pa/ss@` quotes what it takes for the port: half of the password."""
    name = {"redis": "redis_url", "s3": "s3_url", "postgresql": "sql_url"}[url.partition(":")[0]]
    with pytest.raises(ConfigError) as error:
        Settings(**{name: url}, secret=SECRET)  # type: ignore[arg-type]  # wrong on purpose
    assert "is not a URL" in problems(error)[0]
    assert not any(part in problems(error)[0] for part in ("pa/", "se/", "p/w", "'pa'", "'se'"))


@pytest.mark.parametrize(
    "given", [{"redis_url": "redis://h/0"}, {"sql_url": "postgresql://h/d"}, {"sql_url": "cockroachdb://h/d"}]
)
def test_nodes_that_share_stores_must_be_given_a_shared_secret(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(**given)  # type: ignore[arg-type]  # names of text settings
    assert problems(error)[0].startswith("SECRET: is absent")
    assert Settings(**given, secret=SECRET).is_networked  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"tls_cert": Path("c.pem")}, "TLS_CERT"),
        ({"apns_key_id": "A"}, "APNS_KEY_FILE"),
        ({"roles": ("all", "chat")}, "ROLES"),
        ({"socket_ping_s": 61.0}, "SOCKET_PING_S"),
        ({"store_attempt_deadline_s": 6.0}, "STORE_ATTEMPT_DEADLINE_S"),
        ({"access_token_s": 900, "refresh_token_s": 60}, "ACCESS_TOKEN_S"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        Settings(**given)  # type: ignore[arg-type]  # wrong together on purpose
    assert [one.partition(":")[0] for one in problems(error)] == [named]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"cassandra_url": "cassandra://h/k"}, "CASSANDRA_URL"),
        ({"s3_url": "s3://k:s@h/b"}, "S3_URL"),
        ({"smtp_url": "smtp://h"}, "SMTP_URL"),
        ({"tls_cert": Path("c"), "tls_key": Path("k")}, "TLS_CERT"),
    ],
)
def test_what_is_not_built_yet_is_said_and_not_ignored(given: dict[str, object], named: str) -> None:
    settings = Settings(**given, secret=SECRET)  # type: ignore[arg-type]  # a mix of kinds
    assert any(one.startswith(f"{named}: not built yet") for one in not_built(settings))


def test_lanes_share_a_pool_of_any_size() -> None:
    small, large = (sql_policy(Settings(sql_pool_max=n, sql_pool_idle_min=1)) for n in (1, 100))
    assert [lane.reserved for lane in small.lanes] == [0, 0, 0]
    assert [lane.reserved for lane in large.lanes] == [16, 32, 8]
    assert Stack(small, random=lambda: 0.5).statistics().breaker == "closed"


def test_limits_without_effect_yet_are_accepted_and_named() -> None:
    settings = Settings(call_ring_s=7, journal_bytes_max=2_000_000, sockets_max=50)
    assert without_effect(settings) == ["CALL_RING_S", "JOURNAL_BYTES_MAX"]
    assert not_built(settings) == []


def test_rates_are_given_by_class_and_raised_within_their_bounds() -> None:
    settings = Settings(rate_login_per_min=7, rate_default_per_min=900_000)
    assert list(settings.rates_per_min) == CLASSES
    assert settings.rates_per_min["login"] == 7
    raised = settings.with_rates(10).rates_per_min
    assert (raised["login"], raised["register"], raised["default"]) == (70, 50, 1_000_000)


def test_a_sqlite_url_names_a_relative_or_an_absolute_file() -> None:
    assert Settings(sql_url="sqlite:///x/y.db").sqlite_path == Path("x/y.db")
    assert Settings(sql_url="sqlite:////x/y.db").sqlite_path == Path("/x/y.db")


def test_an_instance_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # frozen


@given(st.sampled_from(ROWS), st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.text())))
def test_any_value_is_read_or_refused_and_reading_again_changes_nothing(row: Row, raw: object) -> None:
    try:
        value = row.kind.read(raw)
    except ValueError:
        return
    assert row.kind.read(value) == value
