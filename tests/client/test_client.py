"""The client against servers that behave badly, and its waiting when there is nothing to be done."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import pytest
from websockets.sync.server import ServerConnection, serve

from secureconnect.client import Client, NotConnected, ServerRefused, connect
from secureconnect.client.http import Api
from secureconnect.client.outbox import Outbox
from secureconnect.client.websocket import WebSocket

pytestmark = pytest.mark.anyio
PATIENCE_S = 20
Answer = Callable[[dict[str, Any]], dict[str, object]]


@contextmanager
def bad_server(answer: Answer, *, bytes_max: int | None = None) -> Iterator[str]:
    """A socket server that says hello and gives `answer(command)`, without `id`; its URL."""

    def handle(socket: ServerConnection) -> None:
        socket.send('{"event":"hello","data":{"heartbeat_s":25}}')
        for text in socket:
            command = json.loads(text)
            socket.send(json.dumps({"id": command["id"], **answer(command)}))

    with serve(handle, "127.0.0.1", 0, max_size=bytes_max) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


async def test_a_refused_subscription_is_tried_again() -> None:
    refusals: Iterator[dict[str, object]] = iter([{"error": {"code": "OVERLOADED", "retryable": True}}])
    with bad_server(lambda command: next(refusals, {"result": {"channels": {}}})) as url, anyio.fail_after(PATIENCE_S):
        async with connect(url, token="t") as client:
            assert await client.wait_state("live") == "live"


async def test_who_is_closed_for_size_fails_that_send_and_goes_on_with_the_next() -> None:
    """The limit is somebody's on the way: `hello` did not tell it."""
    with bad_server(lambda command: {"result": {"channels": {}}}, bytes_max=1000) as url, anyio.fail_after(PATIENCE_S):
        async with connect(url, token="t") as client:
            with pytest.raises(ServerRefused) as caught:
                await client.send("c", "x" * 5000)
            assert caught.value.code == "TOO_LARGE"
            await client.send("c", "small")
            assert client.pending == 0


class SilentSocket:
    """Takes everything, answers nothing."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, text: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(text)


@contextmanager
def idle_client() -> Iterator[Client]:
    """One that nobody runs."""
    http = httpx.AsyncClient(base_url="http://127.0.0.1:1")
    yield Client("http://127.0.0.1:1", token="t", channels=None, after={}, api=Api(http))


async def test_a_call_that_is_never_answered_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secureconnect.client.client.ANSWER_S", 0.01)
    with idle_client() as client, anyio.fail_after(PATIENCE_S):
        client._socket = cast(WebSocket, SilentSocket())
        with pytest.raises(NotConnected, match=r"no answer to conversations\.list"):
            await client.call("conversations.list")


async def test_a_send_that_is_never_answered_goes_out_again_under_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secureconnect.client.client.ANSWER_S", 0.01)
    monkeypatch.setattr("secureconnect.client.client.RETRY_S", 0.0)
    silent = SilentSocket()
    with idle_client() as client, anyio.fail_after(PATIENCE_S):
        client._socket = cast(WebSocket, silent)
        client._set_state("live")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client._empty_outbox)
            tasks.start_soon(client.send, "c", "x")
            while len(silent.sent) < 2:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    first, again = (json.loads(text) for text in silent.sent[:2])
    assert first["params"] == again["params"]
    assert first["id"] != again["id"]


async def test_an_offline_client_with_a_postponed_send_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def look(outbox: Outbox, *now: float) -> float:
        nonlocal looks
        looks += 1
        return 0.0

    monkeypatch.setattr(Outbox, "wake_at", look)  # due long ago
    with idle_client() as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client._empty_outbox)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert looks <= 1
