"""Buckets of rate limits in Redis, by its clock: all nodes count together, and none of their clocks matters."""

from __future__ import annotations

from typing import Final

from secureconnect.features.rates.model import Rate, Verdict

from .client import Client
from .link import Script
from .replies import CommandRefused

KEY: Final = "secureconnect:rate:"

TAKE: Final = Script("""
-- model.take in Lua. KEYS[1]: the bucket. ARGV: microseconds for one token, tokens.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = tonumber(redis.call('GET', KEYS[1]) or 0)
if before < now or before > now + token * limit then before = now end
local after = before + token
local early = after - token * limit - now
if early > 0 then
    return {0, 0, before - now, early}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, math.floor(-early / token), after - now, 0}
""")


class RedisRateStore:
    """A `RateStore`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def take(self, key: str, rate: Rate) -> Verdict:
        """Not tried again when the answer is lost: the call may have been counted, and there is a bucket in this node."""
        reply = await self._client.script(
            TAKE, keys=[KEY + key], arguments=[rate.token_us, rate.limit], changes=True, is_repeatable=False
        )
        match reply:
            case [int(allowed), int(remaining), int(reset_us), int(early_us)]:
                return Verdict(bool(allowed), rate.limit, remaining, reset_us / 1e6, early_us / 1e6)
        raise CommandRefused(f"no answer of the rate script: {reply!r}")
