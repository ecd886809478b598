"""How failures are told: what was foreseen in one line with an exit code, everything else as the bug that it is."""

from __future__ import annotations

import pytest

from secureconnect.commands.terminal import DONE, FAILED, MISUSE, NotBuilt, explained, leaves, table
from secureconnect.errors import BackendDown, BadRequest, ConfigError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("PORT: is wrong"), MISUSE, ["PORT: is wrong"]),
        (ConfigError("one (and 1 more)", details={"problems": ["one", "two"]}), MISUSE, ["one", "two"]),
        (BadRequest("email: is none"), MISUSE, ["email: is none"]),
        (NotBuilt(["up: not built yet"]), FAILED, ["up: not built yet"]),
        (BackendDown("sql"), FAILED, ["sql is not available"]),
        (FileNotFoundError(2, "No such file or directory", "/d/x"), FAILED, ["/d/x: No such file or directory"]),
        (ExceptionGroup("", [ExceptionGroup("", [BackendDown("sql")])]), FAILED, ["sql is not available"]),
        (ExceptionGroup("", [BackendDown("sql"), ConfigError("PORT: is wrong")]), MISUSE,
         ["sql is not available", "PORT: is wrong"]),
    ],
)  # fmt: skip
def test_what_was_foreseen_is_told_in_a_line_each(
    error: BaseException, code: int, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(error) == code
    assert capsys.readouterr().err.splitlines() == [f"secureconnect: {line}" for line in said]


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), OSError(32, "Broken pipe"), AssertionError(), ExceptionGroup("", [BackendDown("sql"), KeyError("x")])],
)
def test_a_bug_is_never_dressed_as_something_foreseen(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(error) is None
    assert capsys.readouterr().err == ""


def test_leaves_are_what_groups_hold() -> None:
    one, two = KeyError("1"), KeyError("2")
    assert list(leaves(ExceptionGroup("", [one, ExceptionGroup("", [two])]))) == [one, two]


def test_a_table_is_as_wide_as_it_needs_to_be() -> None:
    assert table([("NAME", "V", "X"), ("a", "long", "")]) == "NAME  V     X\na     long"
    assert table([]) == ""
    assert DONE == 0
