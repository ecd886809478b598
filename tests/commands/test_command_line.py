"""The command line: what each command prints, and its exit code: 0 done, 1 failed, 2 misuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import secureconnect
from secureconnect.__main__ import COMMANDS, main
from secureconnect.config import ROWS
from secureconnect.drill.scenarios import HOLDS, SCENARIOS

PATIENCE_S = 30
"""For one process to start and end, on a machine that is busy with other tests."""
HEAVY = ("trio", "anyio", "structlog", "msgspec", "httptools", "hypercorn", "quart", "websockets", "sqlite3", "argon2", "joserfc",
         "prometheus_client", "secureconnect.app", "secureconnect.server")  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SECURECONNECT_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, environ: dict[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The program as a shell runs it."""
    return subprocess.run(
        [sys.executable, "-m", "secureconnect", *arguments],
        env={**os.environ, "COLUMNS": "120", **(environ or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_version_is_the_one_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == secureconnect.__version__ == project["version"]


def test_the_public_names_are_loaded_when_they_are_used() -> None:
    from secureconnect.config import Settings

    assert secureconnect.Settings is Settings
    assert "SecureConnect" in dir(secureconnect)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = secureconnect.Nothing


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in shown] == []


@pytest.mark.parametrize("name", [*COMMANDS, "config show", "config check", "user add", "user token"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert f"Usage: secureconnect {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "show", "--all"], ["drill", "--list"], ["bogus"], ["serve", "--help"]]
)
def test_commands_that_run_no_server_load_none(arguments: list[str]) -> None:
    """Import time is what a person waits for at each `--help`."""
    code = f"import sys; from secureconnect.__main__ import main; main({arguments!r}); "
    code += f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], 'Unknown command "bogus"'),
        (["serve", "--prot", "1"], "Did you mean --port?"),
        (["serve", "--port", "http"], "http"),
        (["user", "add"], "--email"),
        (["drill", "--scenario", "rediz"], "did you mean redis?"),
        (["config", "show", "--set", "PORT"], "'PORT' is not NAME=VALUE"),
        (["config", "show", "--set", "PROT=1"], "did you mean PORT?"),
        (["config", "show", "--set", "PORT=1e9"], "is not a whole number from 0 to 65535"),
        (["serve", "--port", "70000"], "PORT (flag): 70000 is not a whole number from 0 to 65535"),
    ],
)
def test_misuse_ends_with_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["up", "doctor", "why"])
def test_what_is_not_built_yet_says_so_and_ends_with_1(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "message", "--json"]) == 1
    assert f"{name}: not built yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting",
    ["CASSANDRA_URL=cassandra://h/k", "S3_URL=s3://k:s@h/b", "SMTP_URL=smtp://h"],
)
@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["user", "token", "ada"]])
def test_no_command_ignores_a_dependency_that_is_not_built_yet(
    setting: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--set", setting, "--set", f"SECRET={'s' * 32}"]) == 1
    assert f"{setting.partition('=')[0]}: not built yet" in capsys.readouterr().err


def test_config_show_prints_what_is_set_and_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('log_level = "debug"\n')
    monkeypatch.setenv("SECURECONNECT_PORT", "9000")
    monkeypatch.setenv("SECURECONNECT_SECRET", "never-shown-" * 4)
    assert main(["config", "show", "--json", "--config", str(file), "--data-dir", "/d", "--set", "host=::1"]) == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert {name: (one["value"], one["origin"]) for name, one in shown.items()} == {
        "DATA_DIR": ("/d", "flag"),
        "HOST": ("::1", "flag"),
        "PORT": (9000, "environment"),
        "SECRET": ("(hidden)", "environment"),
        "LOG_LEVEL": ("debug", "file"),
    }
    assert "never-shown" not in out


def test_config_show_without_anything_set_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 0
    assert "all defaults" in capsys.readouterr().out


def test_config_show_all_is_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [row.name for row in ROWS]
    assert main(["config", "show", "--all", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [row.name for row in ROWS]


def test_config_check_lists_every_problem_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("port = 1\n")
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: fits\n"
    file.write_text('port = "x"\nprot = 1\n')
    assert main(["config", "check", str(file)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert main(["config", "check", str(file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [problem.partition(" ")[0] for problem in told["problems"]] == ["PORT", "PROT"]


def test_config_check_does_not_count_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECURECONNECT_PORT", "wrong")
    file = tmp_path / "settings.toml"
    file.write_text("port = 1\n")
    assert main(["config", "check", str(file)]) == 0
    assert main(["config", "check", str(tmp_path / "none.toml")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_wrong_setting_stops_a_command_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECURECONNECT_SOCKET_MAX", "5")
    assert main(["config", "show"]) == 2
    assert "SOCKET_MAX (environment): there is no such setting; did you mean SOCKETS_MAX?" in capsys.readouterr().err


def test_drill_lists_each_scenario_as_built_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(SCENARIOS) == 6
    assert [line.split()[0] for line in lines[:6]] == [one.name for one in SCENARIOS]
    for line in lines[:6]:
        is_built = line.split()[0] in ("redis", "sql")
        assert (" not measured " if is_built else " not built ") in line
        assert ("were not run" if is_built else "it comes with") in line
    assert "0 of 6 scenarios measured" in lines[-1]


def test_drill_reports_as_json_markdown_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--list", "--json", "--report", str(tmp_path / "r")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "r" / "report.json").read_text())
    assert (told["measured"], told["of"], told["percent"]) == (0, 6, None)
    assert all(one["holds"] == dict.fromkeys(HOLDS) and one["experiments"] == [] for one in told["scenarios"])
    for name in ("report.md", "report.html"):
        page = (tmp_path / "r" / name).read_text()
        assert [one.name for one in SCENARIOS if one.name not in page] == []
        assert page.count("not built") == 4


def test_a_scenario_asked_for_by_name_that_is_not_built_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--scenario", "crash", "--scenario", "push"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["crash", "push"]


def test_a_report_that_cannot_be_written_fails_with_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["drill", "--list", "--report", str(tmp_path / "file" / "r")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["config", "show", "--all"], ["config", "show", "--all", "--json"], ["drill", "--list"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str]) -> None:
    """`secureconnect config show --all | head -1`"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-m", "secureconnect", *arguments]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
