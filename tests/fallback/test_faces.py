"""What people are told, on every face of a node, when something goes away and comes back. Virtual time."""

from __future__ import annotations

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from tests.fallback.nodes import Home, open_nodes, told, until, until_told
from trio.testing import MockClock

from secureconnect.fallback.degradation import ALONE_S

REFUSED_S = 1.0
"""From the first refusal to the news of it (failure-policy.md §2)."""
FOUND_S = 5.0
"""The same when nobody asks, and a probe must find out (interface.md §7)."""
CLEARED_S = 10.0
"""From the return to the news of it."""


async def figures(home: Home) -> dict[tuple[str, str], float]:
    text = (await home.ask("GET /metrics")).body.decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}


async def test_a_refused_send_is_told_on_every_face_and_cleared_on_every_face(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        anna = await home.login("anna")
        socket, hello = await home.socket(anna)
        assert hello["degraded"] == {}
        home.lose("sql")
        refused = await home.ask("GET /v1/conversations", anna)
        features = await until_told(socket, lambda features: "send" in features, within_s=REFUSED_S)
        assert sorted(features) == ["history", "live_delivery", "login", "refresh", "send"]
        assert (features["send"]["cause"], sorted(features["send"])) == ("sql", ["cause", "since", "works"])
        assert (refused.status, refused.headers["x-degraded"]) == (503, "history;cause=sql")
        assert "retry-after" in refused.headers
        assert (await home.ask("GET /healthz")).json["degraded"] == features
        assert sorted((await home.ask("GET /health")).json["degraded"]) == sorted(features)
        assert (await figures(home))["secureconnect_degraded", "send"] == 1
        _, hello = await home.socket(anna)
        assert hello["degraded"] == features

        home.heal()
        assert await until_told(socket, lambda features: not features, within_s=CLEARED_S) == {}
        well = await home.ask("GET /v1/conversations", anna)
        assert (well.status, "x-degraded" in well.headers) == (200, False)
        assert (await home.ask("GET /healthz")).json["status"] == "healthy"
        assert ("secureconnect_degraded", "send") not in await figures(home)


async def test_a_bus_that_goes_degrades_delivery_and_typing_and_nothing_else(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        anna = await home.login("anna")
        socket, _ = await home.socket(anna)
        home.lose("bus")
        features = await until_told(socket, lambda features: "typing" in features, within_s=REFUSED_S)
        assert {name: one["cause"] for name, one in features.items()} == {"live_delivery": "redis", "typing": "redis"}
        poll = await home.ask("GET /v1/realtime/poll?channels=all", anna)
        assert poll.headers["x-degraded"] == "live_delivery;cause=redis, typing;cause=redis"
        assert poll.data["degraded"] == features
        assert (await figures(home))["redis_degraded_mode", ""] == 1
        home.heal()
        await until_told(socket, lambda features: not features, within_s=CLEARED_S)
        poll = await home.ask("GET /v1/realtime/poll?channels=all", anna)
        assert "degraded" not in poll.data
        assert (await figures(home))["redis_degraded_mode", ""] == 0


async def test_a_publish_that_hangs_is_told_at_its_deadline_while_the_link_still_stands(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        home.bus.mute["n1"] = None
        await until(lambda: "live_delivery" in home.node.status.degraded, within_s=2.5)  # a digest each second, its deadline 1 s


async def test_a_link_that_brings_nothing_more_is_found_out(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        home.bus.grow_deaf("n1")
        await until(lambda: "live_delivery" in home.node.status.degraded, within_s=FOUND_S)


async def test_redis_that_nobody_asks_is_found_out_by_its_probe(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        home.lose("redis")
        await until(lambda: home.node.status.degraded, within_s=FOUND_S)
        assert sorted(home.node.status.degraded) == ["lockout", "presence", "rate_limits"]
        found = await figures(home)
        assert (found["redis_available", ""], found["redis_degraded_mode", ""]) == (0, 1)
        home.heal()
        await until(lambda: not home.node.status.degraded, within_s=CLEARED_S)


async def test_of_changes_in_one_moment_every_socket_is_told_once(autojump_clock: MockClock) -> None:
    async with open_nodes("n1") as (home,):
        anna = await home.login("anna")
        sockets = [(await home.socket(anna))[0] for _ in range(300)]
        board = home.node.status
        for feature in ("push", "email", "files"):
            board.degrade(feature, cause="s3", works="all else", since_us=1)
        for socket in sockets:
            with trio.fail_after(REFUSED_S):
                assert sorted(await told(socket)) == ["email", "files", "push"]
        with trio.move_on_after(1) as more:
            await told(sockets[0])
        assert more.cancelled_caught


@pytest.mark.parametrize("home", ["sql", "redis"])
async def test_a_node_that_alone_is_cut_off_is_not_ready_until_it_has_it_again(home: str, autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as (first, second):
        first.lose(home)
        await trio.sleep(ALONE_S + FOUND_S)
        ready = await first.ask("GET /readyz")
        assert (ready.status, ready.json["status"]) == (503, "cut_off")
        assert (await first.ask("GET /livez")).status == 200
        assert (await second.ask("GET /readyz")).status == 200
        first.heal()
        await trio.sleep(CLEARED_S)
        assert (await first.ask("GET /readyz")).status == 200


@pytest.mark.parametrize("homes", [("sql",), ("redis",), ("bus", "redis"), ("sql", "redis", "bus")])
async def test_what_all_nodes_lack_makes_none_of_them_unready(homes: tuple[str, ...], autojump_clock: MockClock) -> None:
    async with open_nodes("n1", "n2") as nodes:
        for node in nodes:
            node.lose(*homes)
        for _ in range(2 * round(ALONE_S)):
            await trio.sleep(1)
            for node in nodes:
                assert (await node.ask("GET /readyz")).status == 200
