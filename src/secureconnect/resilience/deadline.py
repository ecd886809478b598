"""A bound on the time of a call: when it is over the caller is free, whatever the call does about that.

Two times count. The *attempt* deadline gives up on one try, so that another can be made; what it ends has failed. The *total* is
what the caller was promised, with every wait and every try in it; what it cuts short may have had no fair chance, and says
nothing of the dependency (`OutOfTime`). Neither says whether the thing was done: the stack knows that (`stack.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

import anyio

from secureconnect.errors import DeadlineExceeded

from .errors import OutOfTime

T = TypeVar("T")


class Deadline:
    """So many seconds for a call of the dependency `name`.

    >>> attempt = Deadline(0.01, "sql")
    >>> async def main() -> None:
    ...     await attempt(anyio.sleep_forever)
    >>> try:
    ...     anyio.run(main)
    ... except DeadlineExceeded as error:
    ...     print(error)
    sql did not answer within 0.01 s
    """

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds = seconds
        self.name = name
        self.expired_total = 0
        self.cut_short_total = 0

    async def __call__(self, call: Callable[[], Awaitable[T]], *, until_s: float = inf) -> T:
        """What `call` returns or raises; a result that came just in time is kept. `until_s`: the loop's time, the latest end.

        Raises: DeadlineExceeded; OutOfTime when `until_s` came first. Cancellation from outside passes, and is no expiry.
        """
        end_s = anyio.current_time() + self.seconds
        with anyio.CancelScope(deadline=min(end_s, until_s)):
            return await call()
        if until_s < end_s:
            self.cut_short_total += 1
            raise OutOfTime(f"{self.name} did not answer in the time that was left", details={"dependency": self.name})
        self.expired_total += 1
        raise DeadlineExceeded(f"{self.name} did not answer within {self.seconds:g} s", details={"dependency": self.name})
