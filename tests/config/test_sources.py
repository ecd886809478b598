"""Where settings come from: flags win over the environment, the environment over the file; unknown names are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from secureconnect.config import load
from secureconnect.config.sources import FILE_BYTES_MAX, nearest
from secureconnect.errors import ConfigError

SECRET = "k" * 40


def written(folder: Path, text: str, name: str = "settings.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def problems(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    found = error.value.details["problems"]
    assert isinstance(found, list)
    return [str(one) for one in found]


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 1\nhost = "file"\nLOG_LEVEL = "error"\n')
    environ = {"SECURECONNECT_PORT": "2", "SECURECONNECT_HOST": "environment", "UNRELATED": "x", "PORT": "9"}
    loaded = load(flags={"PORT": 3, "HOST": None}, environ=environ, file=file)
    assert (loaded.settings.port, loaded.settings.host, loaded.settings.log_level) == (3, "environment", "error")
    assert loaded.origins == {"PORT": "flag", "HOST": "environment", "LOG_LEVEL": "file"}


def test_the_environment_may_name_the_file_and_a_flag_wins_there_too(tmp_path: Path) -> None:
    one, two = written(tmp_path, "port = 1"), written(tmp_path, "port = 2", "two.toml")
    environ = {"SECURECONNECT_CONFIG": str(one)}
    assert load(environ=environ).settings.port == 1
    assert load(environ=environ, file=two).settings.port == 2


def test_an_empty_variable_counts_as_absent() -> None:
    """Compose files pass variables that nobody set as empty ones."""
    loaded = load(environ={"SECURECONNECT_REDIS_URL": "", "SECURECONNECT_CONFIG": "", "SECURECONNECT_PORT": ""})
    assert loaded.origins == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PROT", "did you mean PORT?"),
        ("SOCKET_MAX", "did you mean SOCKETS_MAX?"),
        ("REDIS", "did you mean REDIS_URL?"),
        ("SECRT_FILE", "did you mean SECRET_FILE?"),
        ("QQQQQQQQ", "`secureconnect config show --all` lists them"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(environ={f"SECURECONNECT_{name}": "1"})
    assert problems(error) == [f"{name} (environment): there is no such setting; {hint}"]
    with pytest.raises(ConfigError) as error:
        load(environ={}, file=written(tmp_path, f"{name.lower()} = 1"))
    assert problems(error) == [f"{name} (file): there is no such setting; {hint}"]


def test_every_problem_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 'x'\nnope = 1\n[table]\na = 1\n")
    with pytest.raises(ConfigError) as error:
        load(environ={"SECURECONNECT_SOCKETS_MAX": "-1"}, flags={"LOG_LEVEL": "loud"}, file=file)
    told = problems(error)
    assert [one.partition(" (")[0] for one in told] == ["PORT", "NOPE", "TABLE", "SOCKETS_MAX", "LOG_LEVEL"]
    assert ["(file)" in one for one in told] == [True, True, True, False, False]


def test_a_file_may_hold_lists_numbers_and_switches_as_toml_has_them(tmp_path: Path) -> None:
    text = (
        'origins = ["https://a.example", "https://b.example"]\nrequest_deadline_s = 5\nrate_limits = false\nsockets_max = 2_000\n'
    )
    settings = load(environ={}, file=written(tmp_path, text)).settings
    assert settings.origins == ("https://a.example", "https://b.example")
    assert (settings.request_deadline_s, settings.rate_limits, settings.sockets_max) == (5, False, 2000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = ", "is not a TOML file of settings"),
        ("port = 1\nPORT = 2", "PORT is given twice"),
        ("#" * (FILE_BYTES_MAX + 1), "is not a TOML file of settings (is longer than 1048576 bytes)"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load(environ={}, file=file)
    assert problems(error)[0].startswith(f"{file}: ")
    assert said in problems(error)[0]


def test_a_missing_file_a_folder_and_a_binary_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, said in (("none", "No such file"), (".", "Is a directory"), ("binary", "is not a TOML file")):
        with pytest.raises(ConfigError) as error:
            load(environ={}, file=tmp_path / name)
        assert said in problems(error)[0]


def test_a_secret_may_be_the_content_of_a_file_in_every_source(tmp_path: Path) -> None:
    kept = written(tmp_path, SECRET + "\n", "kept")
    assert load(environ={"SECURECONNECT_SECRET_FILE": str(kept)}).settings.secret == SECRET
    assert load(environ={}, file=written(tmp_path, f'secret_file = "{kept}"')).settings.secret == SECRET
    url = written(tmp_path, "redis://u:p@h/0\n", "url")
    loaded = load(environ={"SECURECONNECT_REDIS_URL_FILE": str(url), "SECURECONNECT_SECRET": SECRET})
    assert loaded.settings.redis_url == "redis://u:p@h/0"


def test_a_higher_source_replaces_a_secret_file_of_a_lower_one(tmp_path: Path) -> None:
    file = written(tmp_path, f'secret_file = "{written(tmp_path, "f" * 40, "kept")}"')
    loaded = load(environ={"SECURECONNECT_SECRET": SECRET}, file=file)
    assert (loaded.settings.secret, loaded.origins["SECRET"]) == (SECRET, "environment")


def test_a_secret_file_that_cannot_be_read_or_is_given_twice_is_an_error(tmp_path: Path) -> None:
    kept = written(tmp_path, SECRET, "kept")
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    cases = {
        "cannot read": {"SECURECONNECT_SECRET_FILE": str(tmp_path / "none")},
        "is not a text file": {"SECURECONNECT_SECRET_FILE": str(tmp_path / "binary")},
        "is given twice": {"SECURECONNECT_SECRET_FILE": str(kept), "SECURECONNECT_SECRET": SECRET},
        "is shorter than 32 bytes": {"SECURECONNECT_SECRET_FILE": str(written(tmp_path, "", "empty"))},
    }
    for said, environ in cases.items():
        with pytest.raises(ConfigError) as error:
            load(environ=environ)
        assert said in problems(error)[0]
        assert SECRET not in problems(error)[0]


def test_only_secrets_have_a_file_form() -> None:
    with pytest.raises(ConfigError, match="PORT_FILE"):
        load(environ={"SECURECONNECT_PORT_FILE": "x"})


def test_settings_that_end_in_file_are_paths_not_contents() -> None:
    assert load(environ={"SECURECONNECT_FCM_CREDENTIALS_FILE": "fcm.json"}).settings.fcm_credentials_file == Path("fcm.json")


def test_a_name_that_is_near_nothing_gets_no_suggestion() -> None:
    assert nearest("zzzzzz") is None
    assert nearest("prot") == "PORT"
