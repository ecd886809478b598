"""An `Auth` over memory stores with nothing left to chance: a clock that is set, numbered ids, hashing that runs inline."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import pytest
import trio

from secureconnect.backends.memory.auth import MemoryRevocations, MemorySessions, MemoryUsers
from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.locks import MemoryLocks
from secureconnect.errors import BackendDown, NotAuthenticated
from secureconnect.features.auth.endings import SESSION_ENDED
from secureconnect.features.auth.model import Login, LoginSession, Registration, User
from secureconnect.features.auth.passwords import Cost, Passwords
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.service import Auth
from secureconnect.features.auth.tokens import Tokens
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.service import Lockouts
from secureconnect.ids import SessionId, UserId, as_uuid

T = TypeVar("T")
SECRET = b"a secret of the tests, 32 bytes long"
START_US = 1_768_000_000_000_000
CHEAP = Cost(passes=1, memory_kib=8)
PASSWORD = "correct horse battery staple"


@dataclass
class FixedClock:
    us: int = START_US

    def now_us(self) -> int:
        return self.us

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * 1_000_000)


class SeededRng:
    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def random(self) -> float:
        return self._random.random()

    def secret(self, size: int) -> bytes:
        return self._random.randbytes(size)


class SeededIds:
    def __init__(self, seed: int = 1) -> None:
        self._seed = seed
        self._given = 0

    def new(self) -> str:
        self._given += 1
        return as_uuid(hashlib.blake2b(b"%d %d" % (self._seed, self._given), digest_size=16).digest())


class InlineBlocking:
    """Runs the work at once and counts it; `gate` holds it until it is set."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate: trio.Event | None = None

    async def run(self, work: Callable[[], T]) -> T:
        self.runs += 1
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        return work()


class Ended(msgspec.Struct):
    session_id: str
    user_id: str
    reason: str


@dataclass
class House:
    """One node's auth with everything around it. `others` gets each signal, as another node would."""

    auth: Auth
    clock: FixedClock
    blocking: InlineBlocking
    passwords: Passwords
    tokens: Tokens
    users: MemoryUsers
    sessions: MemorySessions
    revocation_rows: MemoryRevocations
    revocations: RevocationSet
    signals: list[tuple[str, bytes]]
    others: list[Callable[[bytes], None]] = field(default_factory=list)

    @property
    def ended(self) -> list[tuple[SessionId, str]]:
        """What the signals said: session and reason."""
        assert all(name == SESSION_ENDED for name, _ in self.signals)
        said = [msgspec.json.decode(data, type=Ended) for _, data in self.signals]
        return [(SessionId(one.session_id), one.reason) for one in said]

    async def register(self, name: str = "ada") -> Login:
        return await self.auth.register(registration(name))

    def lets_in(self, login: Login) -> bool:
        """Whether the access token is good here. Raises: NotAuthenticated."""
        return self.auth.verify(login.access_token).session == login.session

    def neighbour(self) -> House:
        """Another node on the same stores, which hears nothing but what `others` is given."""
        node = open_house(clock=self.clock, stores=(self.users, self.sessions, self.revocation_rows), seed=2)
        self.others.append(node.auth.endings.heard)
        return node


def open_house(
    *,
    clock: FixedClock | None = None,
    stores: tuple[MemoryUsers, MemorySessions, MemoryRevocations] | None = None,
    cost: Cost = CHEAP,
    sessions_per_user_max: int = 10,
    waiting_max: int = 64,
    entries_max: int = 1000,
    seed: int = 1,
) -> House:
    clock = clock or FixedClock()
    if stores is None:
        rows = MemoryRevocations()
        sessions = MemorySessions(rows)
        stores = (MemoryUsers(sessions), sessions, rows)
    users, sessions, rows = stores
    blocking, rng = InlineBlocking(), SeededRng(seed)
    passwords = Passwords(blocking, rng, cost=cost, waiting_max=waiting_max)
    tokens, revocations = Tokens(SECRET, clock), RevocationSet(clock, entries_max=entries_max)
    signals: list[tuple[str, bytes]] = []
    others: list[Callable[[bytes], None]] = []

    def signal(name: str, data: bytes) -> None:
        signals.append((name, data))
        for hear in others:
            hear(data)

    guard = Lockouts(
        MemoryLockoutStore(clock),
        MemoryLockoutStore(clock),
        locks=LockSet(MemoryLocks(), clock),
        clock=clock,
        signal=lambda name, data: None,
    )
    auth = Auth(
        users,
        sessions,
        revocations,
        passwords=passwords,
        tokens=tokens,
        clock=clock,
        ids=SeededIds(seed),
        rng=rng,
        signal=signal,
        guard=guard,
        sessions_per_user_max=sessions_per_user_max,
    )
    return House(auth, clock, blocking, passwords, tokens, users, sessions, rows, revocations, signals, others)


def registration(name: str = "ada", *, password: str = PASSWORD) -> Registration:
    return Registration(f"{name}@example.com", password, name.title(), name)


def user(number: int = 1, *, email: str | None = None, username: str | None = None) -> User:
    return User(
        id=UserId(as_uuid(number.to_bytes(16, "big"))),
        email=email or f"user{number}@example.com",
        username=username or f"user{number}",
        display_name=f"User {number}",
        created_us=START_US,
        updated_us=START_US,
    )


def session(number: int, owner: User, *, at_us: int = START_US, life_us: int = 3_600_000_000) -> LoginSession:
    return LoginSession(
        id=SessionId(as_uuid((1000 + number).to_bytes(16, "big"))),
        user=owner.id,
        refresh_hash=b"hash %d" % number,
        created_us=at_us,
        rotated_us=at_us,
        last_used_us=at_us,
        expires_us=at_us + life_us,
    )


async def refused(attempt: Awaitable[object], code: str) -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        await attempt
    assert refusal.value.word == code


def no_entry(house: House, login: Login, code: str = "TOKEN_REVOKED") -> None:
    with pytest.raises(NotAuthenticated) as refusal:
        house.auth.verify(login.access_token)
    assert refusal.value.word == code


class Outage:
    """Between an `Auth` and its sessions: while `is_on`, every call is refused, or only the write when `reads` go on."""

    def __init__(self, sessions: MemorySessions) -> None:
        self.is_on = self.reads = False
        self._sessions = sessions

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        method: Callable[..., Awaitable[object]] = getattr(self._sessions, name)

        async def call(*args: object, **named: object) -> object:
            if self.is_on and not (self.reads and name in {"session", "sessions_of"}):
                await trio.lowlevel.checkpoint()
                raise BackendDown("sql")
            return await method(*args, **named)

        return call
