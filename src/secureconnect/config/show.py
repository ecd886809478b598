"""What `config show` and docs/settings.md say: each setting with value, unit, default and meaning, secrets hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from secureconnect.config.row import PREFIX, Row
from secureconnect.config.settings import ROWS
from secureconnect.config.sources import Loaded

Shown: TypeAlias = str | int | float | bool | list[str] | None
HIDDEN = "(hidden)"
_QUERY_SECRET = re.compile(r"(?i)([?&][^=&]*(?:pass|secret|key|token)[^=&]*=)[^&]*")
_NOTES = {
    "works": "",
    "later": "accepted, without effect yet",
    "refused": "not built yet: the server does not start with it",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One setting as people read it."""

    name: str
    value: Shown
    default: Shown
    unit: str
    origin: str
    help: str
    note: str


def lines(loaded: Loaded, *, every: bool) -> list[Line]:
    """`every`: all settings, else those that differ from their default or were given."""
    shown = [row for row in ROWS if every or row.name in loaded.origins]
    return [_line(row, getattr(loaded.settings, row.field), loaded.origins) for row in shown]


def _line(row: Row, value: object, origins: Mapping[str, str]) -> Line:
    return Line(
        name=row.name,
        value=_hidden(row, value),
        default=_plain(row.default),
        unit=row.unit,
        origin=origins.get(row.name, "default"),
        help=row.help,
        note=_NOTES[row.status],
    )


def _hidden(row: Row, value: object) -> Shown:
    if value is None or row.secret == "no":
        return _plain(value)
    return HIDDEN if row.secret == "whole" else without_password(str(value))


def without_password(url: str) -> str:
    """The URL with its password, and what a query names as secret, hidden."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    login, at, host = rest.rpartition("@")
    if at:
        user, colon, _ = login.partition(":")
        rest = user + (f":{HIDDEN}" if colon else "") + at + host
    return scheme + slashes + _QUERY_SECRET.sub(rf"\1{HIDDEN}", rest)


def _plain(value: object) -> Shown:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else repr(value)


def as_text(value: Shown) -> str:
    """A value as one writes it into the environment."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) or "-" if isinstance(value, list) else str(value)


def markdown(rows: Iterable[Row] = ROWS) -> str:
    """docs/settings.md, whole."""
    head = (
        "# Settings\n\n"
        "Made from the list in `src/secureconnect/config/settings.py` by `make docs`; do not edit it here.\n\n"
        f"In the environment each name stands behind `{PREFIX}`; in a TOML file (`--config FILE` or\n"
        f"`{PREFIX}CONFIG`) it stands alone, in either case. Flags win over the environment, the environment over the\n"
        "file. An empty variable counts as absent. A secret (marked 🔒) may be given as `NAME_FILE`, the path of a file that\n"
        "holds it. An unknown name or a wrong value stops the start with a sentence that says which and why. Any setting can be\n"
        "a flag: `--set NAME=VALUE`.\n\n"
        "| name | default | unit | fits | meaning |\n|---|---|---|---|---|\n"
    )
    return head + "".join(_table_line(row) for row in rows)


def _table_line(row: Row) -> str:
    lock = " 🔒" if row.secret != "no" else ""
    note = f" *({_NOTES[row.status]})*" if _NOTES[row.status] else ""
    default = f"`{as_text(_plain(row.default))}`" if row.default not in (None, ()) else "–"
    return f"| `{row.name}`{lock} | {default} | {row.unit} | {row.kind.words} | {row.help}{note} |\n"
