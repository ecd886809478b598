"""Tallies of wrong passwords in Redis, by its clock: one hash for each key, which ends with what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from secureconnect.features.lockout.model import FAILURES_MAX, LOCK_US, WINDOW_US, Tally

from .client import Client
from .link import Script
from .replies import CommandRefused, Part

KEY: Final = "secureconnect:lockout:"

_BEGIN: Final = """
-- The tally in KEYS[1], empty when it has ended. ARGV[1]: the window, ARGV[2]: a lock's length, ARGV[3]: failures to a lock.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, lock, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'failures', 'since', 'until')
local failures, since, till = tonumber(kept[1] or 0), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
local function ends() if till > 0 then return till end return since + window end
if now >= ends() then failures, since, till = 0, 0, 0 end
local function keep()
    redis.call('HSET', KEYS[1], 'failures', failures, 'since', string.format('%.0f', since), 'until', string.format('%.0f', till))
    redis.call('PEXPIRE', KEYS[1], math.max(1, math.ceil((ends() - now) / 1000)))
end
"""
_END: Final = "\nreturn {failures, since, till}"

READ: Final = Script(_BEGIN + _END)
FAIL: Final = Script(
    _BEGIN
    + """
if now >= till then
    if failures == 0 then since = now end
    failures = failures + 1
    if failures >= most then till = now + lock end
    keep()
end
"""
    + _END
)
MERGE: Final = Script(
    _BEGIN
    + """
failures, since = math.max(failures, tonumber(ARGV[4])), math.max(since, tonumber(ARGV[5]))
till = math.max(till, tonumber(ARGV[6]))
keep()
"""
    + _END
)
CLEAR: Final = Script(
    _BEGIN
    + """
if now >= till then
    redis.call('DEL', KEYS[1])
    failures, since, till = 0, 0, 0
end
"""
    + _END
)


class RedisLockoutStore:
    """A `LockoutStore`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, key: str) -> Tally:
        return await self._run(READ, key, changes=False, is_repeatable=True)

    async def fail(self, key: str) -> Tally:
        return await self._run(FAIL, key, changes=True, is_repeatable=False)

    async def merge(self, key: str, tally: Tally) -> Tally:
        numbers = (tally.failures, tally.since_us, tally.locked_until_us)
        return await self._run(MERGE, key, numbers, changes=True, is_repeatable=True)

    async def clear(self, key: str) -> None:
        await self._run(CLEAR, key, changes=True, is_repeatable=True)

    async def _run(self, script: Script, key: str, numbers: Sequence[Part] = (), *, changes: bool, is_repeatable: bool) -> Tally:
        arguments = [WINDOW_US, LOCK_US, FAILURES_MAX, *numbers]
        reply = await self._client.script(
            script, keys=[KEY + key], arguments=arguments, changes=changes, is_repeatable=is_repeatable
        )
        match reply:
            case [int(failures), int(since_us), int(locked_until_us)]:
                return Tally(failures, since_us, locked_until_us)
        raise CommandRefused(f"no answer of the lockout script: {reply!r}")
