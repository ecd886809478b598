"""Rate limits as callers meet them: over HTTP, on a socket, in front of a socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import trio
from tests.server.front_kit import request
from tests.server.socket_kit import open_world
from tests.server.test_node import open_home
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.backends.memory.rates import MemoryRateStore
from secureconnect.config import Settings
from secureconnect.errors import BackendDown, NotFound
from secureconnect.features.auth.model import Identity
from secureconnect.features.rates.model import Rate, Verdict
from secureconnect.features.rates.service import Rates
from secureconnect.ids import RequestId, SessionId, UserId
from secureconnect.server.bounds import rates_of
from secureconnect.server.dispatch import Dispatcher
from secureconnect.server.endpoints import Context, Endpoint, NoParams, RateClass, Via
from secureconnect.server.origins import subscriber
from secureconnect.server.rate_limits import RateLimiter
from secureconnect.server.wire import Response

LIMITS = {"search": Rate(2), "connect": Rate(2), "default": Rate(3)}


class SetClock:
    us = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self.us


class Desk:
    """A dispatcher with a limiter, and one row of each kind."""

    def __init__(self, *, shared: SharedStore | None = None, is_on: bool = True) -> None:
        self.clock = SetClock()
        self.limiter = RateLimiter(Rates(LIMITS, MemoryRateStore(self.clock), shared=shared), self.clock, is_on=is_on)
        self.dispatcher = Dispatcher(request_deadline_s=5, limiter=self.limiter)

    async def call(
        self,
        rate: RateClass = "search",
        *,
        user: str | None = "ann",
        peer: str = "192.0.2.1:1",
        via: Via = "http",
        fails: bool = False,
        is_public: bool = False,
    ) -> Response:
        async def work(context: Context, params: NoParams) -> object:
            if fails:
                raise NotFound
            return {}

        row = Endpoint(
            name="x",
            method="POST",
            path="/x",
            params=NoParams,
            call=work,
            permission="public" if user is None or is_public else "user",
            rate=rate,
        )
        me = None if user is None else Identity(UserId(user), SessionId("s"), "", "", "user", 2**31)
        return await self.dispatcher.call(row, {}, Context(via, peer, RequestId("r"), me))


class SharedStore:
    """Buckets behind a wire that may be cut, or bring nothing."""

    def __init__(self) -> None:
        self.is_away = self.is_stuck = False
        self._store = MemoryRateStore(SetClock())

    async def take(self, key: str, rate: Rate) -> Verdict:
        if self.is_stuck:
            await trio.sleep_forever()
        if self.is_away:
            raise BackendDown("redis")
        return await self._store.take(key, rate)


def test_every_class_of_the_table_has_a_number_in_the_settings() -> None:
    assert set(rates_of(Settings())) | {"none"} == set(get_args(RateClass))
    assert rates_of(Settings(rate_login_per_min=7))["login"] == Rate(7)


async def test_answers_say_what_is_left_and_a_refusal_when_to_come_back() -> None:
    desk = Desk()
    first, second, third = [await desk.call() for _ in range(3)]
    assert first.headers == {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1800000030"}
    assert second.headers["X-RateLimit-Remaining"] == "0"
    assert third.status == 429
    assert third.error is not None
    assert (third.error.word, third.error.retryable, third.error.retry_after_s) == ("RATE_LIMIT_EXCEEDED", True, 30)
    assert third.headers == {
        "X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000060", "Retry-After": "30",
    }  # fmt: skip
    assert third.error.details == {"class": "search", "limit": 2, "remaining": 0, "reset_at": 1_800_000_060}
    assert desk.limiter.refused == {"search": 1}
    desk.clock.us += 30_000_000
    assert (await desk.call()).status == 200


async def test_an_operation_that_fails_says_what_is_left_too_and_counts() -> None:
    desk = Desk()
    failed = await desk.call(fails=True)
    assert (failed.status, failed.headers["X-RateLimit-Remaining"]) == (404, "1")


async def test_users_are_counted_wherever_they_come_from_and_strangers_by_their_address() -> None:
    desk = Desk()
    for peer in ("192.0.2.1:1", "192.0.2.2:1"):
        assert (await desk.call(peer=peer)).status == 200
    assert (await desk.call(peer="192.0.2.3:1")).status == 429
    assert (await desk.call(user="bob")).status == 200
    for port in (1, 2):
        assert (await desk.call(user=None, peer=f"192.0.2.1:{port}")).status == 200
    assert (await desk.call(user=None, peer="192.0.2.1:3")).status == 429
    assert (await desk.call(user=None, peer="192.0.2.9:3")).status == 200


async def test_what_anyone_may_ask_is_counted_by_address_whoever_asks() -> None:
    desk = Desk()
    assert [(await desk.call(user=user, is_public=True)).status for user in ("ann", "bob", "eve")] == [200, 200, 429]


@pytest.mark.parametrize(
    ("peer", "who"),
    [
        ("192.0.2.1:5", "192.0.2.1"), ("[::ffff:192.0.2.1]:5", "192.0.2.1"), ("[2001:db8:1:2:3::9]:5", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:5", "fe80::/64"), ("pipe", "pipe"),
    ],
)  # fmt: skip
def test_a_stranger_is_an_address_or_an_ipv6_network(peer: str, who: str) -> None:
    assert subscriber(peer) == who


async def test_classes_do_not_share_sockets_and_http_do_and_some_are_never_limited() -> None:
    desk = Desk()
    for via in ("http", "socket"):
        assert (await desk.call(via=via)).status == 200
    refused = await desk.call(via="socket")
    assert refused.status == 429
    assert (await desk.call("default")).status == 200
    for _ in range(5):
        unlimited = await desk.call("none")
        assert (unlimited.status, unlimited.headers) == (200, {})


async def test_switched_off_nothing_is_counted() -> None:
    desk = Desk(is_on=False)
    for _ in range(5):
        response = await desk.call()
        assert (response.status, response.headers) == (200, {})


async def test_while_the_shared_buckets_are_away_requests_are_counted_here() -> None:
    store = SharedStore()
    desk = Desk(shared=store)
    assert (await desk.call()).headers["X-RateLimit-Remaining"] == "1"
    store.is_away = True
    assert [(await desk.call()).status for _ in range(3)] == [200, 200, 429]
    assert desk.limiter.rates.is_local


async def test_the_time_that_counting_takes_is_part_of_the_requests_deadline(autojump_clock: MockClock) -> None:
    store = SharedStore()
    store.is_stuck = True
    began_s = trio.current_time()
    assert (await Desk(shared=store).call()).status == 504
    assert trio.current_time() - began_s == 5


async def test_sockets_that_open_are_counted_and_refused_before_the_upgrade(autojump_clock: MockClock) -> None:
    clock = SetClock()
    async with open_world(limiter=RateLimiter(Rates(LIMITS, MemoryRateStore(clock)), clock)) as world:
        for _ in range(2):
            assert (await world.begin("alice").upgraded()).status == 101
        refused = await world.begin("alice").upgraded()
        assert (refused.status, refused.headers["retry-after"], refused.headers["x-ratelimit-limit"]) == (429, "30", "2")
        assert msgspec.json.decode(refused.body)["error"]["code"] == "RATE_LIMIT_EXCEEDED"
        assert (await world.begin("bob").upgraded()).status == 101
        assert world.gateway.counters.opened == 3


async def test_a_token_revoked_while_the_handshake_waits_to_be_counted_opens_no_socket(
    autojump_clock: MockClock,
) -> None:
    store, clock = SharedStore(), SetClock()
    gate = trio.Event()

    class Gated(SharedStore):
        async def take(self, key: str, rate: Rate) -> Verdict:
            await gate.wait()
            return await store.take(key, rate)

    limiter = RateLimiter(Rates(LIMITS, MemoryRateStore(clock), shared=Gated()), clock)
    async with open_world(limiter=limiter) as world:
        client = world.begin("bob")
        await wait_all_tasks_blocked()
        world.tokens.revoked["bob-main"] = None
        gate.set()
        assert (await client.upgraded()).status == 401


async def test_a_socket_is_told_in_the_error_when_to_come_back(autojump_clock: MockClock) -> None:
    clock = SetClock()
    async with open_world(limiter=RateLimiter(Rates(LIMITS, MemoryRateStore(clock)), clock)) as world:
        client = world.begin("alice")
        assert (await client.upgraded()).status == 101
        for _ in range(3):
            assert "result" in await client.call("echo", text="x")
        error = (await client.call("echo", text="x"))["error"]
        assert isinstance(error, dict)
        assert (error["code"], error["retryable"], error["retry_after_s"]) == ("RATE_LIMIT_EXCEEDED", True, 20)


async def test_a_node_limits_as_its_settings_say_and_neither_health_nor_figures(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, shutdown_grace_s=0, rate_login_per_min=1, rate_account_per_min=2)
    async with open_home(settings) as home:
        token = {"Authorization": f"Bearer {await home.token()}"}
        for status, left in ((200, "1"), (200, "0"), (429, "0")):
            got = await home.ask(request("GET /v1/auth/profile", token))
            assert (got.status, got.headers["x-ratelimit-limit"], got.headers["x-ratelimit-remaining"]) == (status, "2", left)
        assert (got.error["code"], got.headers["retry-after"]) == ("RATE_LIMIT_EXCEEDED", "30")
        for line in ("GET /livez", "GET /metrics", "GET /openapi.json"):
            assert "x-ratelimit-limit" not in (await home.ask(request(line))).headers
        assert (await home.figures())["secureconnect_rate_limited_total", "account"] == 1


async def test_wrong_passwords_lock_an_account_for_who_tries_from_there(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, shutdown_grace_s=0, rate_limits=False)

    def login(password: str) -> bytes:
        return request("POST /v1/auth/login", body=json.dumps({"email": "A@example.org", "password": password}).encode())

    async with open_home(settings) as home:
        await home.token()
        for _ in range(5):
            assert (await home.ask(login("a wrong password"))).error["code"] == "INVALID_CREDENTIALS"
        locked = await home.ask(login("a long password"))
        assert (locked.status, locked.error["code"]) == (401, "ACCOUNT_LOCKED")
        assert 890 < int(locked.headers["retry-after"]) <= 900
        assert (await home.figures())["auth_account_locked_total", ""] == 1
        assert len(home.node.locks.unwritten) == 0
