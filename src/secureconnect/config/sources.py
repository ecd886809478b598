"""Where values come from: flags win over the environment, the environment over the file.

Names are the same everywhere: upper-case behind `SECURECONNECT_` in the environment, in either case in a TOML file. A secret
may be given as `NAME_FILE`, a file that holds it. An empty variable counts as absent. An unknown name is an error that
suggests the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from secureconnect.config import rules
from secureconnect.config.row import PREFIX, Row
from secureconnect.config.settings import BY_NAME, ROWS, Settings
from secureconnect.errors import ConfigError

Origin = Literal["default", "file", "environment", "flag"]
FILE_BYTES_MAX = 1 << 20
SECRET_FILE_BYTES_MAX = 64 << 10
_CONFIG = "CONFIG"
"""`SECURECONNECT_CONFIG` names the file; it is not a setting."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each value that is not a default came from."""

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None


@dataclass(slots=True)
class _Gathered:
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load(
    *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Loaded:
    """Read everything once. `flags` by upper-case name, None meaning not given; `environ` None: the process's own.

    Raises: ConfigError; `details["problems"]` lists every problem found, one sentence each.
    """
    environ = os.environ if environ is None else environ
    chosen = file or (Path(environ[PREFIX + _CONFIG]) if environ.get(PREFIX + _CONFIG) else None)
    given: list[tuple[Origin, dict[str, object]]] = [
        ("file", _from_file(chosen) if chosen else {}),
        ("environment", _from_environment(environ)),
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
    ]
    gathered = _Gathered()
    for origin, values in given:
        _gather(gathered, origin, values)
    if gathered.problems:
        raise ConfigError(rules.headline(gathered.problems), details={"problems": gathered.problems})
    settings = Settings(**{name.lower(): value for name, value in gathered.values.items()})  # type: ignore[arg-type]  # read above
    return Loaded(settings, gathered.origins, chosen)


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    names = sorted(name for name in environ if name.startswith(PREFIX) and environ[name])
    return {name.removeprefix(PREFIX): environ[name] for name in names if name != PREFIX + _CONFIG}


def _from_file(path: Path) -> dict[str, object]:
    try:
        data = _read(path, FILE_BYTES_MAX)
        found = tomllib.loads(data)
    except OSError as error:
        raise _unreadable(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # TOML's own error and a wrong encoding are ValueErrors
        raise _unreadable(f"{path}: is not a TOML file of settings ({error})") from error
    named: dict[str, object] = {}
    for name, value in found.items():
        if name.upper() in named:
            raise _unreadable(f"{path}: {name.upper()} is given twice")
        named[name.upper()] = value
    return named


def _unreadable(what: str) -> ConfigError:
    return ConfigError(what, details={"problems": [what]})


def _read(path: Path, bytes_max: int) -> str:
    with path.open("rb") as stream:
        data = stream.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ValueError(f"is longer than {bytes_max} bytes")
    return data.decode()


def _gather(gathered: _Gathered, origin: Origin, values: Mapping[str, object]) -> None:
    """Lay one source over those before it."""
    for given, raw in values.items():
        row = BY_NAME.get(given)
        if row is None:
            row = BY_NAME.get(given.removesuffix("_FILE"))
            if row is None or row.secret == "no" or not given.endswith("_FILE"):
                gathered.problems.append(unknown(given, origin))
                continue
            if row.name in values:
                gathered.problems.append(f"{row.name} ({origin}): is given twice, as {row.name} and as {given}")
                continue
            try:
                raw = _read(Path(str(raw)), SECRET_FILE_BYTES_MAX).strip()
            except OSError as error:
                gathered.problems.append(f"{given} ({origin}): cannot read {raw}: {error.strerror or error}")
                continue
            except ValueError:
                gathered.problems.append(f"{given} ({origin}): {raw} is not a text file with a secret in it")
                continue
        _take(gathered, row, raw, origin)


def _take(gathered: _Gathered, row: Row, raw: object, origin: Origin) -> None:
    try:
        gathered.values[row.name] = row.kind.read(raw)
        gathered.origins[row.name] = origin
    except ValueError as error:
        gathered.problems.append(rules.problem(row, raw, str(error), origin=origin))


def unknown(name: str, origin: Origin) -> str:
    """The sentence about a name that is no setting."""
    near = nearest(name)
    hint = f"; did you mean {near}?" if near else "; `secureconnect config show --all` lists them"
    return f"{name} ({origin}): there is no such setting{hint}"


def nearest(name: str, names: Iterable[str] | None = None) -> str | None:
    """The known name most like `name`, when one is near enough to be a slip."""
    known = (
        list(names)
        if names is not None
        else [row.name for row in ROWS] + [f"{row.name}_FILE" for row in ROWS if row.secret != "no"]
    )
    folded = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
