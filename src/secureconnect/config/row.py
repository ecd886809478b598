"""How a field of `Settings` says everything about itself, so that validation, `config show` and the docs read one list."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from secureconnect.config.kinds import Kind

T = TypeVar("T")

PREFIX = "SECURECONNECT_"
Secret = Literal["no", "whole", "url"]
"""How much of a value is hidden: nothing, all of it, or the password inside a URL."""
Status = Literal["works", "later", "refused"]
"""`later`: accepted and checked, without effect yet. `refused`: so too, and `serve` does not start with it, because who sets it
counts on a part that is not built yet."""
_KEY = "row"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `name` is upper-case and without the prefix, as in a file or behind `SECURECONNECT_`."""

    name: str
    kind: Kind[object]
    default: object
    help: str
    secret: Secret
    status: Status

    @property
    def field(self) -> str:
        return self.name.lower()

    @property
    def unit(self) -> str:
        """From the name, where the house rule puts it."""
        if "_BYTES_" in self.name:
            return "bytes"
        for ending, unit in (("_PER_MIN", "per minute"), ("_S", "s"), ("_PERCENT", "%"), ("_MAX", "count"), ("_MIN", "count")):
            if self.name.endswith(ending):
                return unit
        return ""


def setting(default: T, kind: Kind[T], help: str, *, secret: Secret = "no", status: Status = "works") -> T:
    """A field of `Settings`. To the type checker it is its default, as with `dataclasses.field`."""
    found: Any = dataclasses.field(
        default=default,
        repr=secret == "no",
        metadata={_KEY: (kind, help, secret, status)},
    )
    declared: T = found
    return declared


def rows_of(fields: Iterable[dataclasses.Field[object]]) -> tuple[Row, ...]:
    """The rows behind the fields of a dataclass made with `setting`."""
    return tuple(_row(field) for field in fields)


def _row(field: dataclasses.Field[object]) -> Row:
    kind, help_text, secret, status = field.metadata[_KEY]
    return Row(field.name.upper(), kind, field.default, help_text, secret, status)
