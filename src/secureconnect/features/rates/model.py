"""A bucket of tokens, kept as one number: the moment at which it will be full again.

Theory (GCRA). A bucket for `limit` calls in `period_s` gains one token each `period/limit`. Instead of counting tokens it is
enough to know when the bucket is full: each call moves that moment one token's time further, from now if it lies in the past. A
call is refused when that would lie further ahead than the whole bucket; and a refused call moves nothing, so who hammers is let
in as soon as who waits. One number can be kept by any store, and changed in one step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` calls at once, and as many again in each `period_s`."""

    limit: int
    period_s: float = 60.0

    @property
    def token_us(self) -> int:
        """The time in which one token comes."""
        return max(1, round(self.period_s * 1e6) // self.limit)

    def shared_by(self, nodes: int) -> Rate:
        """One node's part of it, at least one call."""
        return Rate(max(1, self.limit // max(1, nodes)), self.period_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `X-RateLimit-*` and `Retry-After` say. `reset_s`: until the bucket is full. `is_local`: only this node counted."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_s: float
    retry_after_s: float = 0.0
    is_local: bool = False


def take(rate: Rate, full_at_us: int, now_us: int) -> tuple[int, Verdict]:
    """One call at `now_us` from a bucket that is full at `full_at_us` (0: as new). Returns when it will be full, and the verdict.

    >>> full_at_us, verdict = take(Rate(2, 60), 0, 1_000_000)
    >>> full_at_us, verdict.is_allowed, verdict.remaining
    (31000000, True, 1)
    """
    token_us = rate.token_us
    is_past = full_at_us < now_us
    is_jumped = full_at_us > now_us + token_us * rate.limit  # by no call: the clock went back, and nobody shall wait for it
    before_us = now_us if is_past or is_jumped else full_at_us
    after_us = before_us + token_us
    early_us = after_us - token_us * rate.limit - now_us
    if early_us > 0:
        return full_at_us, Verdict(False, rate.limit, 0, (before_us - now_us) / 1e6, early_us / 1e6)
    return after_us, Verdict(True, rate.limit, -early_us // token_us, (after_us - now_us) / 1e6)
