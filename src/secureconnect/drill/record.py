"""What one experiment saw, as plain data: the load writes it, the oracle judges it, the report draws it.

All times are seconds of one monotonic clock, that of the process that makes the load.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NO_ANSWER = 0
"""As a status: the connection ended, or nothing came within the load's own patience."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What was broken, and when. `is_outage`: the dependency itself was away or slow for that long, so health must name it;
    else only our connections were cut, or it was there again at once."""

    name: str
    dependency: str
    began_s: float
    ended_s: float
    is_outage: bool = True

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Op:
    """One request or command and how it ended. `at_s`: when it was sent. `code`: the error's word. `has_retry`: told when to come
    back. `wait_s`: what it had asked to wait (polls)."""

    kind: str
    node: str
    at_s: float
    took_s: float
    status: int
    code: str = ""
    has_retry: bool = False
    wait_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def ended_s(self) -> float:
        return self.at_s + self.took_s


@dataclass(frozen=True, slots=True)
class Ack:
    """A message that the server said it has."""

    conversation: str
    key: str
    message: str
    sequence: int
    node: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A numbered event at a subscriber."""

    subscriber: str
    conversation: str
    sequence: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Subscriber:
    """`node` "": one that polls, at each node in turn. `is_prompt`: it reads at once, so its times tell of the server."""

    name: str
    node: str
    is_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a conversation's log, read when all was over. `message`: the id of the message it created, "" for others."""

    sequence: int
    message: str


@dataclass(frozen=True, slots=True)
class Health:
    """One look at `/healthz`. `states`, `breakers`: by dependency. `queues`: `{name: (depth, bound)}`. `ledger`: `(published
    side, accounted side)`, None when it has none."""

    node: str
    at_s: float
    states: dict[str, str]
    breakers: dict[str, str] = field(default_factory=dict)
    queues: dict[str, tuple[int, int]] = field(default_factory=dict)
    ledger: tuple[int, int] | None = None
    tasks: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """A `degraded` frame at a socket of `node`; no features: all is well."""

    node: str
    at_s: float
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """A logout that was acknowledged."""

    session: str
    node: str
    at_s: float


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A try with the access token of a session that had been logged out."""

    session: str
    node: str
    at_s: float
    status: int


@dataclass(frozen=True, slots=True)
class LockTry:
    """A login with the right password on an account that was locked before the fault."""

    node: str
    at_s: float
    status: int


@dataclass(slots=True)
class Record:
    """All of it. `logs` None where a conversation's log could not be read in the end. `skipped`: operations that the load did not
    start because too many were under way. `independent`: kinds of `Op` that do not need what was broken."""

    fault: Fault
    nodes: tuple[str, ...]
    independent: frozenset[str]
    began_s: float = 0.0
    ops: list[Op] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    subscribers: list[Subscriber] = field(default_factory=list)
    logs: dict[str, list[Entry] | None] = field(default_factory=dict)
    health: list[Health] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    revoked: list[Revoked] = field(default_factory=list)
    token_uses: list[TokenUse] = field(default_factory=list)
    lock_tries: list[LockTry] = field(default_factory=list)
    skipped: int = 0
    reconnects: int = 0
