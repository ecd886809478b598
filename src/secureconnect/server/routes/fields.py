"""Types of fields that several operations take. Their constraints are checked by dispatch and shown in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

UUID_PATTERN: Final = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"

Uuid: TypeAlias = Annotated[
    str,
    msgspec.Meta(pattern=UUID_PATTERN, min_length=36, max_length=36, extra_json_schema={"format": "uuid"}),
]
"""An id; the lengths are there because a pattern's `$` would let a final line break pass."""
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, description="Items on a page; a higher number than allowed is lowered.")]
Offset: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
After: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="A sequence; exclusive.")]


class Said(msgspec.Struct):
    """The answer of an operation that has nothing else to say: a sentence for people."""

    message: str
