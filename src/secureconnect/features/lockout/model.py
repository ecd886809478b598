"""Too many wrong passwords lock an account for whoever tries from there: the counting.

The key is e-mail and address together: by e-mail alone a stranger could lock anybody out, by address alone a whole office. A lock
never resets through an outage: two counts of one key are merged to the higher of each of their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from secureconnect.errors import NotAuthenticated

FAILURES_MAX: Final = 5
"""Wrong passwords (contract.md §5.4) …"""
WINDOW_US: Final = 15 * 60 * 1_000_000
"""… in so long, from the first one."""
LOCK_US: Final = 15 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Of one key. `since_us`: its first failure; `locked_until_us`: 0 while there is no lock. Wall time in microseconds."""

    failures: int = 0
    since_us: int = 0
    locked_until_us: int = 0

    def lock_left_s(self, now_us: int) -> float:
        """Seconds for which it is locked; 0: it is not."""
        return max(0, self.locked_until_us - now_us) / 1e6

    def ends_us(self) -> int:
        """From then on it says nothing any more."""
        return self.locked_until_us or self.since_us + WINDOW_US


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as it is kept on disk. `number`: of its row, growing."""

    number: int
    key: str
    until_us: int


class AccountLocked(NotAuthenticated):
    """Too many failed tries; this account is locked for a while."""

    code: ClassVar[str] = "ACCOUNT_LOCKED"


class Guard(Protocol):
    """What stands before a login. `address`: where it comes from."""

    async def check(self, email: str, address: str) -> None:
        """Before the password is looked at. Raises: AccountLocked, with the time that is left."""
        ...

    async def failed(self, email: str, address: str) -> None:
        """The password was wrong, or there is no such account. Cancellation: it may not be counted."""
        ...

    async def succeeded(self, email: str, address: str) -> None:
        """The password was right."""
        ...


def failed(tally: Tally, now_us: int) -> Tally:
    """One more wrong password. A locked one does not count: nobody looked at the password."""
    if now_us < tally.locked_until_us:
        return tally
    if now_us >= tally.ends_us():
        tally = Tally(since_us=now_us)
    failures = tally.failures + 1
    return Tally(failures, tally.since_us, now_us + LOCK_US if failures >= FAILURES_MAX else 0)


def merged(one: Tally, other: Tally) -> Tally:
    """Two counts of the same key, made apart: neither a lock nor a failure is lost."""
    return Tally(
        max(one.failures, other.failures), max(one.since_us, other.since_us), max(one.locked_until_us, other.locked_until_us)
    )


def lockout_key(email: str, address: str) -> str:
    """As e-mails are compared: exactly, but for their case, which costs a guesser nothing."""
    return f"{email.casefold()} {address}"
