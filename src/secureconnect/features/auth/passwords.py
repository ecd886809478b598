"""Hashing and checking passwords: Argon2id, aside from the event loop, in the same time whether or not there is such a user."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import argon2
from argon2.exceptions import HashingError, VerificationError, VerifyMismatchError

from secureconnect.errors import Overloaded
from secureconnect.observe import stage
from secureconnect.ports import Blocking, Rng

T = TypeVar("T")
WAITING_MAX: Final = 64
"""Checks that run or wait; at 127 ms each on two threads (libraries.md §9) the last one waits 4 s."""
HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
"""RFC 9106 §3.1 recommends 128 bits."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one hash costs. The defaults are RFC 9106's second choice (64 MiB, 3 passes) on one lane: with more than one lane
    six checks at once stalled the event loop by 37 ms (libraries.md §9)."""

    passes: int = 3
    memory_kib: int = 65_536


class Passwords:
    """Checks and makes password hashes in the encoded form `$argon2id$v=19$m=…,t=…,p=1$salt$hash`."""

    def __init__(self, blocking: Blocking, rng: Rng, *, cost: Cost = Cost(), waiting_max: int = WAITING_MAX) -> None:
        self._blocking = blocking
        self._rng = rng
        self._waiting_max = waiting_max
        self._waiting = 0
        self._hasher = argon2.PasswordHasher(
            time_cost=cost.passes,
            memory_cost=cost.memory_kib,
            parallelism=1,
            hash_len=HASH_BYTES,
            salt_len=SALT_BYTES,
        )
        self._nobody = self._decoy(cost)

    async def hash(self, password: str) -> str:
        """Raises: Overloaded when too many wait or memory is short."""
        salt = self._rng.secret(SALT_BYTES)
        return await self._aside(lambda: self._hasher.hash(password, salt=salt))

    async def matches(self, password: str, known: str | None) -> bool:
        """Whether `known` is a hash of `password`. None (there is no such user) does the same work and is False.

        Raises: Overloaded as `hash`; argon2's InvalidHashError for what never was a hash of ours.
        """
        against = self._nobody if known is None else known
        return await self._aside(lambda: self._verified(against, password)) and known is not None

    def is_outdated(self, known: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(known)

    def _verified(self, known: str, password: str) -> bool:
        try:
            return self._hasher.verify(known, password)
        except VerifyMismatchError:
            return False

    async def _aside(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._waiting_max:
            raise Overloaded("Too many passwords are being checked")
        self._waiting += 1
        stage.at("hash")
        try:
            return await self._blocking.run(work)
        except (HashingError, VerificationError) as error:
            if "emory" not in str(error):  # the library names a failed allocation only in words
                raise
            raise Overloaded("Not enough memory to check a password") from error
        finally:
            self._waiting -= 1

    def _decoy(self, cost: Cost) -> str:
        """A hash that no password has, so that checking against it costs what checking against a real one does."""
        salt, digest = (base64.b64encode(self._rng.secret(size)).rstrip(b"=").decode() for size in (SALT_BYTES, HASH_BYTES))
        return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p=1${salt}${digest}"
