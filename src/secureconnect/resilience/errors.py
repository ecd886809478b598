"""What a dependency's layers say beside the house's own errors."""

from __future__ import annotations

from secureconnect.errors import DeadlineExceeded, Unavailable


class Contention(Unavailable):
    """The database undid a transaction in favour of another one (SQLSTATE 40001, 40P01); run it again."""


class OutOfTime(DeadlineExceeded):
    """The caller's whole time was over before an attempt had its own; that says nothing of the dependency."""
