"""What the server answers, and what its refusals mean to us: the first word of an error decides.

A server that cannot serve now (it loads its data, its primary is away, a script keeps it busy, it does not let us in) is down,
and later may help. One that takes no more data is full: an error of its own, for a second try finds the same. Everything else it
complains of is a bug of ours, stays an internal error, and is never dressed as something that may pass.
"""

from __future__ import annotations

from typing import TypeAlias

import hiredis

from secureconnect.errors import BackendDown, SecureConnectError, StorageFull

NAME = "redis"
"""The dependency's name in errors and health."""

Part: TypeAlias = str | bytes | int | float
"""Of a command."""
Reply: TypeAlias = bool | int | float | bytes | list["Reply"] | dict[bytes, "Reply"] | None

FULL = frozenset({"OOM", "MISCONF"})
"""maxmemory is reached and nothing may be evicted; or it stopped taking writes because it cannot save them to its disk."""
DOWN = frozenset(
    {
        "LOADING", "BUSY", "MASTERDOWN", "READONLY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED",  # not now
        "NOAUTH", "WRONGPASS", "NOPERM", "DENIED",  # until somebody changes its settings or ours
    }
)  # fmt: skip
UNFIT = frozenset({"READONLY", "NOAUTH"})
"""The connection leads to the wrong server (a replica since a failover: the name leads elsewhere by now), or lost its login."""
AT_CAPACITY = "ERR max number of clients reached"


class ConnectionLost(BackendDown):
    """There is no connection, or it ended before the answer. `was_sent`: the server may have done it."""

    def __init__(self, why: str, *, was_sent: bool = False) -> None:
        super().__init__(NAME, f"{NAME} is not connected: {why}")
        self.why, self.was_sent = why, was_sent


class ScriptUnknown(SecureConnectError):
    """The server does not have the script (NOSCRIPT): it was restarted, or never saw it."""


class CommandRefused(SecureConnectError):
    """The server does not understand us, or finds another type of value than we do: a bug on our side."""


def word(error: hiredis.ReplyError) -> str:
    """The first word of an error, which says what it is."""
    return str(error).partition(" ")[0]


def refusal(error: hiredis.ReplyError) -> SecureConnectError:
    """The house's error for it."""
    first, text = word(error), f"{NAME}: {error}"
    if first in FULL:
        return StorageFull(NAME, text)
    if first in DOWN or str(error).startswith(AT_CAPACITY):
        return BackendDown(NAME, text)
    if first == "NOSCRIPT":
        return ScriptUnknown(text)
    return CommandRefused(text)
