"""Log lines are events with fields, and never carry a token, a password or what people write."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from secureconnect.observe import log

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose disk is full."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def written(format: str = "json", level: str = "info", **fields: object) -> str:
    stream = io.StringIO()
    log.configure(format=format, level=level, stream=stream)
    structlog.get_logger("test").info("something", **fields)
    return stream.getvalue()


def test_elsewhere_than_on_a_terminal_lines_are_json() -> None:
    line = json.loads(written("auto", port=8080, nothing=None))
    assert (line["event"], line["level"], line["port"], line["nothing"]) == ("something", "info", 8080, None)
    assert line["time"].endswith("Z")


def test_on_a_terminal_lines_are_key_value() -> None:
    stream = Terminal()
    log.configure(stream=stream)
    structlog.get_logger("test").warning("something", port=8080, words="two words", empty="", quote='a"b', line="a\nb")
    time, level, event, rest = stream.getvalue().rstrip("\n").split(" ", 3)
    assert time.endswith("Z")
    assert (level, event) == ("warning", "something")
    assert rest == r'port=8080 words="two words" empty="" quote="a\"b" line="a\nb"'


def test_one_event_is_one_line_whatever_its_fields_hold() -> None:
    """Else whoever names a user could write lines of their own."""
    for format in ("text", "json"):
        assert written(format, name="x\n2026-01-01 error forged=1", other="a\r\u2028b").count("\n") == 1


def test_lines_below_the_level_are_not_written() -> None:
    assert written(level="warning") == ""


@pytest.mark.parametrize(
    "name",
    ["token", "access_token", "refresh_token", "password", "new_password", "secret", "client_secret", "authorization",
     "Authorization", "cookie", "content", "body", "api_key", "password_hash", "email", "query"],
)  # fmt: skip
@pytest.mark.parametrize("format", ["text", "json"])
def test_fields_that_hold_secrets_or_content_are_hidden(name: str, format: str) -> None:
    line = written(format, deeper={"list": [{name: "s3cret-value"}]}, **{name: "s3cret-value"})
    assert "s3cret-value" not in line
    assert log.HIDDEN in line


@pytest.mark.parametrize("name", ["token_count", "content_length", "passwords", "user_id", "connection_id", "code", "reason"])
def test_other_fields_are_written_as_they_are(name: str) -> None:
    assert json.loads(written(**{name: "plain"}))[name] == "plain"


@pytest.mark.parametrize("name", ["path", "url", "target", "uri"])
def test_query_strings_are_cut_off_addresses(name: str) -> None:
    assert json.loads(written(**{name: "/v1/ws?token=abc&x=1"}))[name] == "/v1/ws"


@pytest.mark.parametrize(
    "text",
    [f"bad token {JWT}", f"header was 'Authorization: Bearer {JWT}'", "GET /v1/ws?access_token=opaque123 HTTP/1.1",
     "Bearer opaque123", "redis://h?password=opaque123&x=1"],
)  # fmt: skip
def test_what_looks_like_a_token_is_blanked_inside_any_text(text: str) -> None:
    line = written(error=text)
    assert JWT not in line
    assert "opaque123" not in line


def test_tracebacks_are_written_and_scrubbed_too() -> None:
    stream = io.StringIO()
    log.configure(format="json", stream=stream)
    try:
        raise ValueError(f"cannot read {JWT}")
    except ValueError:
        structlog.get_logger("test").exception("unexpected")
    line = json.loads(stream.getvalue())
    assert "ValueError: cannot read [hidden]" in line["exception"]
    assert JWT not in stream.getvalue()


def test_what_is_nested_too_deep_is_hidden_whole() -> None:
    deep: object = "s3cret"
    for _ in range(10):
        deep = {"a": deep}
    assert "s3cret" not in written(deep=deep)


def test_objects_are_written_by_their_repr_and_scrubbed() -> None:
    class Thing:
        def __repr__(self) -> str:
            return f"<Thing {JWT}>"

    assert json.loads(written(thing=Thing()))["thing"] == "<Thing [hidden]>"


def test_a_full_disk_or_a_closed_pipe_below_the_log_fails_nobody_and_is_counted() -> None:
    writer = log.configure(stream=Broken())
    structlog.get_logger("test").info("something")
    assert writer.lost == 1
    closed = io.StringIO()
    writer = log.configure(format="json", stream=closed)
    closed.close()
    structlog.get_logger("test").info("something")
    assert writer.lost == 1


def test_a_logger_made_before_the_set_up_follows_it() -> None:
    """Modules make theirs when they are imported."""
    early = structlog.get_logger("early")
    stream = io.StringIO()
    log.configure(format="json", stream=stream)
    early.info("something")
    log.configure(format="json", stream=stream, level="error")
    early.info("hidden")
    assert stream.getvalue().count("\n") == 1
