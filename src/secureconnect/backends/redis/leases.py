"""Leases of presence in Redis: sorted sets of leases by the moment they end and of users by when they went, and a count of leases
by user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from secureconnect.features.presence.store import GONE_MAX, LEASE_S, USERS_MAX, Change, Sighting
from secureconnect.ids import UserId

from .client import Client
from .link import Script
from .replies import CommandRefused, Part, Reply

LEASES: Final = "secureconnect:presence:leases"
COUNTS: Final = "secureconnect:presence:counts"
GONE: Final = "secureconnect:presence:gone"
KEYS: Final = (LEASES, COUNTS, GONE)

_CLOCK: Final = """
-- KEYS: leases ("user node" by the millisecond of its end), counts (leases by user), gone (users by the millisecond).
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = {}
local function remove(lease)
    if redis.call('ZREM', KEYS[1], lease) == 0 then return end
    local user = string.match(lease, '^[^ ]+')
    if redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
        redis.call('HDEL', KEYS[2], user)
        redis.call('ZADD', KEYS[3], string.format('%.0f', now), user)
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
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[2])
return changed
"""
)
LOOK: Final = Script(
    """
-- Of each user: 1 who is there, else the millisecond of her going, or 0.
local found = {}
for n, user in ipairs(ARGV) do
    found[n] = redis.call('HEXISTS', KEYS[2], user) == 1 and '1' or redis.call('ZSCORE', KEYS[3], user) or '0'
end
return found
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
        return Change(went=await self._run(EXPIRE, USERS_MAX, GONE_MAX))

    async def look(self, users: Sequence[UserId]) -> Sequence[Sighting]:
        if not users:
            return []
        found = await self._client.script(LOOK, keys=KEYS, arguments=users, changes=False, is_repeatable=True)
        if not isinstance(found, list):
            raise CommandRefused(f"no answer of a presence script: {found!r}")
        return [_sighting(user, mark) for user, mark in zip(users, found, strict=True)]

    async def _run(self, script: Script, *arguments: Part) -> Sequence[UserId]:
        """Not tried again when the answer is lost: a second run would find nothing to change, and tell nobody of the first."""
        reply = await self._client.script(script, keys=KEYS, arguments=arguments, changes=True, is_repeatable=False)
        return _users(reply)


def _users(reply: Reply) -> Sequence[UserId]:
    if not isinstance(reply, list):
        raise CommandRefused(f"no answer of a presence script: {reply!r}")
    return [UserId(user.decode()) for user in reply if isinstance(user, bytes)]


def _sighting(user: UserId, mark: Reply) -> Sighting:
    if not isinstance(mark, bytes):
        raise CommandRefused(f"no answer of a presence script: {mark!r}")
    if mark == b"1":
        return Sighting(user, True)
    return Sighting(user, False, None if mark == b"0" else int(mark) * 1000)
