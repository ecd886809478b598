"""Each kind of data: where it lives, what happens while that is away, how it comes back. The one table (failure-policy.md §2).

There is no rule for all of them: what a node does alone with a counter, a lock or a message differs, and a blind copy back would
overwrite what is newer. So each kind has its row, which names the code that does as it says; tests hold the rows against it. Only
what is built has a row.

Homes are `sql` (the database, networked or a file of this node), `redis` (its commands) and `bus` (what the nodes say to each
other over Redis, on links of their own, which may be away alone). What has no home is in the node itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from secureconnect.features.access.service import AWAY_S as MEMBERSHIP_AWAY_S

Home: TypeAlias = Literal["sql", "redis", "bus"]
HOMES: Final[Mapping[Home, str]] = {"sql": "sql", "redis": "redis", "bus": "redis"}
"""Each with the dependency that people know it by (interface.md §7)."""

ACROSS_NODES_S: Final = 2.0
"""The bound for what one node tells the others, while Redis or the database is there (failure-policy.md §2)."""

Reads = Literal["works", "own", "cached", "detour", "refused"]
"""`own`: what this node knows by itself. `cached`: an answer up to `staleness_s` old, else refused. `detour`: over another home,
within `staleness_s`. `refused`: 503 with Retry-After."""
Writes = Literal["none", "own", "detour", "refused"]
"""`none`: there is nothing to write. The others likewise."""
Merge = Literal["nothing", "union", "higher", "dropped", "rebuilt", "read_again"]
"""When the home returns. `nothing`: it is the truth, and nobody wrote elsewhere. `union`: nothing is taken back. `higher`: the
higher count, the later end. `dropped`: what was counted apart is forgotten. `rebuilt`: from what is, never from a copy.
`read_again`: the home is asked for what was missed."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What people notice of `feature` while all of these homes are away. `works`: what still does, in words for people."""

    without: tuple[Home, ...]
    feature: str
    works: str

    @property
    def cause(self) -> str:
        """The dependency to name."""
        return HOMES[self.without[0]]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of data. `staleness_s` None: no bound is promised, or none is needed. `keeper`: `module:name` of what does so."""

    data: str
    homes: tuple[Home, ...]
    reads: Reads
    writes: Writes
    staleness_s: float | None
    merge: Merge
    keeper: str
    effects: tuple[Effect, ...] = ()


_SEND = Effect(("sql",), "send", "a message that is refused may be sent again under its client_message_id")
_HISTORY = Effect(("sql",), "history", "what open sockets receive; reading what is stored waits for the database")

POLICY: Final[Sequence[Row]] = (
    Row("access tokens", (), "works", "none", None, "nothing", "secureconnect.features.auth.tokens:Tokens.verify"),
    Row(
        "users and passwords", ("sql",), "refused", "refused", None, "nothing",
        "secureconnect.features.auth.service:Auth.login",
        (Effect(("sql",), "login", "who is logged in stays so; logging in and registering wait for the database"),),
    ),
    Row(
        "sessions", ("sql",), "works", "refused", None, "nothing",
        "secureconnect.features.auth.service:Auth.refresh",
        (Effect(("sql",), "refresh", "access tokens are good until they expire; refreshing waits for the database"),),
    ),
    Row(
        "revocations", ("sql",), "own", "own", ACROSS_NODES_S, "union",
        "secureconnect.features.auth.revocations:RevocationSet",
    ),
    Row(
        "lockout", ("redis",), "own", "own", None, "higher",
        "secureconnect.features.lockout.service:Lockouts",
        (Effect(("redis",), "lockout", "this node counts wrong passwords itself; no lock is lifted"),),
    ),
    Row(
        "rate limits", ("redis",), "own", "own", None, "dropped",
        "secureconnect.features.rates.service:Rates",
        (Effect(("redis",), "rate_limits", "this node counts its own share of each limit"),),
    ),
    Row(
        "presence", ("redis",), "own", "own", None, "rebuilt",
        "secureconnect.features.presence.service:Presence",
        (Effect(("redis",), "presence", "who is connected to this node, marked as partial"),),
    ),
    Row(
        "membership", ("sql",), "cached", "refused", MEMBERSHIP_AWAY_S, "read_again",
        "secureconnect.features.access.service:Access.standing",
    ),
    Row("conversations", ("sql",), "refused", "refused", None, "nothing",
        "secureconnect.features.conversations.service:Conversations", (_HISTORY, _SEND)),
    Row("messages", ("sql",), "refused", "refused", None, "nothing",
        "secureconnect.features.messages.service:Messages", (_SEND, _HISTORY)),
    Row(
        "delivery between nodes", ("bus", "sql"), "detour", "detour", ACROSS_NODES_S, "read_again",
        "secureconnect.hub:DigestTable",
        (
            Effect(("bus",), "live_delivery", "at once on the same node, within 2 s between nodes"),
            Effect(("sql",), "live_delivery", "open subscriptions go on; new ones, and what was lost on its way, wait for the "
                   "database"),
            Effect(("sql", "bus"), "live_delivery", "open subscriptions go on for what happens on the same node"),
        ),
    ),
    Row(
        "typing", ("bus",), "own", "own", None, "nothing",
        "secureconnect.server.websocket_subscriptions:socket_methods",
        (Effect(("bus",), "typing", "among those who are connected to the same node"),),
    ),
)  # fmt: skip


def degraded(away: Collection[Home]) -> Mapping[str, Effect]:
    """By feature, while these homes are away.

    >>> list(degraded(["bus"]))
    ['live_delivery', 'typing']
    >>> degraded(["bus"])["typing"].cause
    'redis'
    """
    found: dict[str, Effect] = {}
    for effect in (effect for row in POLICY for effect in row.effects):
        known = found.get(effect.feature)
        if all(home in away for home in effect.without) and (known is None or len(effect.without) > len(known.without)):
            found[effect.feature] = effect
    return found
