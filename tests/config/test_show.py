"""What people read about settings: everything, secrets hidden, and the page in docs/ kept current."""

from __future__ import annotations

from pathlib import Path

import pytest

from secureconnect.config import ROWS, load, show

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"
SECRET = "never-shown-" * 4


def test_the_page_in_docs_is_the_one_that_the_list_makes() -> None:
    assert DOCS.read_text(encoding="utf-8") == show.markdown(), "run `make docs`"


def test_without_every_only_what_was_given_is_shown() -> None:
    loaded = load(environ={"SECURECONNECT_PORT": "9"})
    assert [(line.name, line.value, line.origin) for line in show.lines(loaded, every=False)] == [("PORT", 9, "environment")]
    assert [line.name for line in show.lines(loaded, every=True)] == [row.name for row in ROWS]


def test_every_limit_has_a_unit() -> None:
    lines = {line.name: line.unit for line in show.lines(load(environ={}), every=True)}
    assert lines["OUTBOX_BYTES_MAX"] == "bytes"
    assert lines["REQUEST_DEADLINE_S"] == "s"
    assert lines["RATE_LOGIN_PER_MIN"] == "per minute"
    assert lines["SOCKETS_MAX"] == "count"
    assert [name for name, unit in lines.items() if name.endswith(("_S", "_MAX", "_MIN", "_PERCENT")) and not unit] == []


def test_secrets_are_hidden() -> None:
    loaded = load(environ={"SECURECONNECT_SECRET": SECRET, "SECURECONNECT_REDIS_URL": f"redis://user:{SECRET}@h/0"})
    shown = {line.name: line.value for line in show.lines(loaded, every=True)}
    assert shown["SECRET"] == "(hidden)"
    assert shown["REDIS_URL"] == "redis://user:(hidden)@h/0"
    assert "never-shown" not in str(shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("redis://:pw@h/0", "redis://:(hidden)@h/0"),
        ("s3://KEY:SE@CRET@h:1/b?tls=off", "s3://KEY:(hidden)@h:1/b?tls=off"),
        ("postgresql://u@h/d?password=pw&x=1", "postgresql://u@h/d?password=(hidden)&x=1"),
        ("sqlite:///data/x.db", "sqlite:///data/x.db"),
    ],
)
def test_a_url_keeps_everything_but_its_password(url: str, shown: str) -> None:
    assert show.without_password(url) == shown
