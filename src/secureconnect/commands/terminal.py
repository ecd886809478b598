"""How every command takes its settings, speaks to people and programs, and ends: 0 done, 1 failed, 2 misuse."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from secureconnect.config import Loaded, Settings, load, not_built
from secureconnect.errors import BadRequest, CannotListen, ConfigError, SecureConnectError

DONE, FAILED, MISUSE = 0, 1, 2


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where settings come from, beside the environment.

    Parameters
    ----------
    config
        A TOML file of settings (also SECURECONNECT_CONFIG).
    data_dir
        Folder of everything the server keeps (DATA_DIR).
    set
        Any setting, as NAME=VALUE; may be repeated.
    """

    config: Path | None = None
    data_dir: Path | None = None
    set: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()


def settings_from(source: Source | None, flags: Mapping[str, object] | None = None) -> Loaded:
    """Flags over the environment over the file. Raises: ConfigError."""
    source = source or Source()
    chosen: dict[str, object] = {}
    for pair in source.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: {pair!r} is not NAME=VALUE; for example --set PORT=9000")
        chosen[name.upper()] = value
    chosen["DATA_DIR"] = source.data_dir if source.data_dir is not None else chosen.get("DATA_DIR")
    chosen |= {name: value for name, value in (flags or {}).items() if value is not None}
    return load(flags=chosen, file=source.config)


def buildable(source: Source | None, flags: Mapping[str, object] | None = None) -> Settings:
    """Settings that name nothing that is not built yet. Raises: ConfigError, NotBuilt."""
    settings = settings_from(source, flags).settings
    missing = not_built(settings)
    if missing:
        raise NotBuilt(missing)
    return settings


class NotBuilt(Exception):
    """Something was asked for that this version does not have; `missing` says what, a sentence each."""

    def __init__(self, missing: Iterable[str]) -> None:
        self.missing = list(missing)
        super().__init__("; ".join(self.missing))


def say(text: str) -> None:
    """A line for people or, if it is one, for the program that started us: at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(data: object) -> None:
    say(json.dumps(data, ensure_ascii=False, indent=2))


def complain(*lines: str) -> None:
    """What went wrong, on standard error."""
    for line in lines:
        sys.stderr.write(f"secureconnect: {line}\n")
    sys.stderr.flush()


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Columns as wide as they need to be, the last one ragged."""
    listed = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)] if listed else []
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed)
    return "\n".join(lines)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions themselves, out of the groups that nurseries put around them."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def explained(error: BaseException) -> int | None:
    """Tell a failure that was foreseen, and return the exit code. None for anything else: a bug, which gets its traceback."""
    found = list(leaves(error))
    return max(_told(one) for one in found) if found and all(_is_foreseen(one) for one in found) else None


def _is_foreseen(error: BaseException) -> bool:
    """Of the operating system's errors those about a file, which the user named or whose folder they chose."""
    return isinstance(error, SecureConnectError | NotBuilt) or (isinstance(error, OSError) and error.filename is not None)


def _told(error: BaseException) -> int:
    if isinstance(error, CannotListen):
        complain(error.message)
        return FAILED
    if isinstance(error, ConfigError):
        problems = error.details.get("problems")
        complain(*(problems if isinstance(problems, list) else [error.message]))
        return MISUSE
    if isinstance(error, NotBuilt):
        complain(*error.missing)
        return FAILED
    if isinstance(error, BadRequest):
        complain(error.message)
        return MISUSE
    if isinstance(error, OSError):
        complain(f"{error.filename}: {error.strerror or error}")
        return FAILED
    complain(str(error))
    return FAILED
