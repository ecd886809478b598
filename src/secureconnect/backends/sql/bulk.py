"""Many rows in one statement: the same SQL text with 1, 2, 4 … 128 rows, so that few texts are ever prepared.

A call into the database costs more than a row in it (sqlite.py says why), so 200 rows go as 128 + 64 + 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from secureconnect.backends.sql.engine import Plan, Row, Value

ROWS_MAX: Final = 128
"""Rows of one statement: at 9 columns 1,152 parameters, where SQLite allows 32,766 and PostgreSQL 65,535."""


def in_bulk(template: str, rows: Sequence[Sequence[Value]]) -> Plan[list[Row]]:
    """Run `template` for all `rows`; its `{rows}` becomes `($1, $2), ($3, $4), …`. Returns what all statements returned.

    Templates are module constants; all rows have the same length. Order is that of the database: RETURNING promises none.
    """
    found: list[Row] = []
    for part in _parts(rows):
        found += yield _text(template, len(part), len(part[0])), tuple(chain.from_iterable(part))
    return found


def _parts(rows: Sequence[Sequence[Value]]) -> Iterator[Sequence[Sequence[Value]]]:
    begin = 0
    while begin < len(rows):
        count = min(ROWS_MAX, 1 << (len(rows) - begin).bit_length() - 1)
        yield rows[begin : begin + count]
        begin += count


@lru_cache(maxsize=256)
def _text(template: str, rows: int, columns: int) -> str:
    numbers = iter(range(1, rows * columns + 1))
    groups = ("(" + ", ".join(f"${next(numbers)}" for _ in range(columns)) + ")" for _ in range(rows))
    return template.replace("{rows}", ", ".join(groups))
