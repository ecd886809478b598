"""Leases of presence in Redis: a sorted set of leases by the moment they end, and a count of leases by user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from secureconnect.features.presence.store import LEASE_S, USERS_MAX, Change
from secureconnect.ids import UserId

from .client import Client
from .link import Script
from .replies import CommandRefused, Part, Reply

LEASES: Final = "secureconnect:presence:leases"
COUNTS: Final = "secureconnect:presence:counts"

_CLOCK: Final = """
-- KEYS: leases ("user node" by the millisecond of its end), counts (leases by user).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = {}
local function remove(lease)
    if redis.call('ZREM', KEYS[1], lease) == 0 then return end
    local user = string.match(lease, '^[^ ]+')
    if redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
        redis.call('HDEL', KEYS[2], user)
        changed[#changed + 1] = user
    end
end
"""
HOLD: Final = Script(
    _CLOCK
    + """
local till = string.format('%.0f', now + ARGV[2])
for n = 3, #ARGV do
    if redis.call('ZADD', KEYS[1], till, ARGV[n] .. ' ' .. ARGV[1]) == 1 then
        if redis.call('HINCRBY', KEYS[2], ARGV[n], 1) == 1 then changed[#changed + 1] = ARGV[n] end
    end
end
return changed
"""
)
RELEASE: Final = Script(_CLOCK + "\nfor n = 2, #ARGV do remove(ARGV[n] .. ' ' .. ARGV[1]) end\nreturn changed\n")
EXPIRE: Final = Script(
    _CLOCK
    + """
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])) do
    remove(lease)
end
return changed
"""
)


class RedisLeaseStore:
    """A `LeaseStore`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def hold(self, node: str, users: Sequence[UserId], *, lease_s: float = LEASE_S) -> Change:
        return Change(came=await self._run(HOLD, node, round(lease_s * 1000), *users))

    async def release(self, node: str, users: Sequence[UserId]) -> Change:
        return Change(went=await self._run(RELEASE, node, *users))

    async def expire(self) -> Change:
        return Change(went=await self._run(EXPIRE, USERS_MAX))

    async def present(self, users: Sequence[UserId]) -> Sequence[UserId]:
        if not users:
            return []
        counts = await self._client.command("HMGET", COUNTS, *users, changes=False, is_repeatable=True)
        if not isinstance(counts, list):
            raise CommandRefused(f"no answer of HMGET: {counts!r}")
        return [user for user, count in zip(users, counts, strict=True) if count is not None]

    async def _run(self, script: Script, *arguments: Part) -> Sequence[UserId]:
        """Not tried again when the answer is lost: a second run would find nothing to change, and tell nobody of the first."""
        reply = await self._client.script(script, keys=[LEASES, COUNTS], arguments=arguments, changes=True, is_repeatable=False)
        return _users(reply)


def _users(reply: Reply) -> Sequence[UserId]:
    if not isinstance(reply, list):
        raise CommandRefused(f"no answer of a presence script: {reply!r}")
    return [UserId(user.decode()) for user in reply if isinstance(user, bytes)]
