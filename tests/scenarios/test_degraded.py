"""A running node whose real Redis is killed and started again: people are told in time, and told when it is over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from tests.services.redis import RedisServer
from trio_websocket import WebSocketConnection, open_websocket_url

from secureconnect import SecureConnect, Settings

pytestmark = [pytest.mark.slow, pytest.mark.service]

FAR_S = 30.0
"""For what the policy bounds by 10 s: a machine that is busy may be late, a server that never tells is not."""
OF_REDIS = ["live_delivery", "lockout", "presence", "rate_limits", "typing"]


async def event(socket: WebSocketConnection, name: str) -> dict[str, Any]:
    while True:
        message = json.loads(await socket.get_message())
        if message.get("event") == name:
            data: dict[str, Any] = message["data"]
            return data


async def until_told(socket: WebSocketConnection, wanted: list[str]) -> dict[str, Any]:
    with trio.fail_after(FAR_S):
        while sorted(features := (await event(socket, "degraded"))["features"]) != wanted:
            pass
    told: dict[str, Any] = features
    return told


async def test_a_redis_that_is_killed_and_started_again_is_told_and_cleared(tmp_path: Path, redis_server: RedisServer) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    settings = Settings(data_dir=tmp_path, port=0, secret="s" * 32, redis_url=url, shutdown_grace_s=0)
    async with SecureConnect(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=FAR_S) as http:
        fields = {"email": "anna@example.org", "username": "anna", "password": "a long password", "display_name": "Anna"}
        token = (await http.post("/v1/auth/register", json=fields)).json()["data"]["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        poll = "/v1/realtime/poll?channels=all"
        address = f"{server.url.replace('http', 'ws')}/v1/ws"
        async with open_websocket_url(address, extra_headers=[(b"Authorization", f"Bearer {token}".encode())]) as socket:
            assert (await event(socket, "hello"))["degraded"] == {}
            assert "x-degraded" not in (await http.get(poll)).headers

            await trio.to_thread.run_sync(redis_server.kill)
            features = await until_told(socket, OF_REDIS)
            assert [one["cause"] for one in features.values()] == ["redis"] * len(OF_REDIS)
            answer = await http.get(poll)
            assert answer.status_code == 200
            assert answer.headers["x-degraded"] == "live_delivery;cause=redis, typing;cause=redis"
            assert answer.json()["data"]["degraded"] == features
            health = (await http.get("/healthz")).json()
            assert (health["status"], health["degraded"]) == ("degraded", features)
            assert (await http.get("/readyz")).status_code == 200
            assert "redis_degraded_mode 1.0" in (await http.get("/metrics")).text

            await trio.to_thread.run_sync(redis_server.start)
            await until_told(socket, [])
            assert "x-degraded" not in (await http.get(poll)).headers
            health = (await http.get("/healthz")).json()
            assert (health["status"], health["degraded"]) == ("healthy", {})
