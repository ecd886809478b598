"""The examples, run for real: a server each, and clients that talk to it over sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import anyio
import hypercorn.config
import hypercorn.trio
import pytest
import trio
import uvicorn
import websockets.asyncio.client
import websockets.trio.client

from secureconnect.hub import Limits

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:  # noqa: ANN401  # a module outside every package
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listener() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


class Server(uvicorn.Server):
    """Says when it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepts = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepts.set()


@asynccontextmanager
async def on_asyncio(app: Any) -> AsyncIterator[str]:  # noqa: ANN401  # an ASGI application
    """uvicorn."""
    with listener() as listening:
        server = Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio", lifespan="on"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(server.serve, sockets=[listening]))
            await server.accepts.wait()
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = True


@asynccontextmanager
async def on_trio(app: Any) -> AsyncIterator[str]:  # noqa: ANN401  # an ASGI application
    """hypercorn's trio worker."""
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(hypercorn.trio.serve, app, config, shutdown_trigger=done.wait))
        yield url.replace("http", "ws")
        done.set()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.anyio
async def test_people_chat_in_the_fastapi_example_and_resume_after_an_absence(anyio_backend: str) -> None:
    app = example("fastapi_chat").app
    serve = on_asyncio if anyio_backend == "asyncio" else on_trio
    connect: Any = websockets.asyncio.client.connect if anyio_backend == "asyncio" else websockets.trio.client.connect
    with anyio.fail_after(20):
        async with serve(app) as url:
            async with connect(f"{url}/rooms/lobby") as ann:
                assert json.loads(await ann.recv())["recovered"] is True
                async with connect(f"{url}/rooms/lobby") as bob:
                    await bob.recv()
                    await ann.send("hello")
                    heard = [json.loads(await client.recv()) for client in (ann, bob)]
                assert [event["data"] for event in heard] == [{"text": "hello"}] * 2
                await ann.send("are you there?")
                await ann.recv()
                async with connect(f"{url}/rooms/lobby?after={heard[1]['position']}") as bob_again:
                    assert json.loads(await bob_again.recv())["recovered"] is True
                    missed = json.loads(await bob_again.recv())
                    assert missed["data"] == {"text": "are you there?"}
            async with connect(f"{url}/rooms/lobby?after=00000000-1") as stranger:
                assert json.loads(await stranger.recv())["recovered"] is False


@pytest.mark.trio
async def test_people_chat_in_the_trio_example_and_one_who_never_reads_costs_nobody_anything() -> None:
    chat = example("trio_chat")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            limits = Limits(write_wait_s=0.2, outbox_messages_max=50)
            (serving,) = await nursery.start(chat.main, 0, limits)
            port = serving.socket.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as ann, await trio.open_tcp_stream("127.0.0.1", port) as bob:
                stalled = await trio.open_tcp_stream("127.0.0.1", port)
                await ann.send_all(b"hello\n")
                await read_until(ann, b"hello")
                for n in range(200):
                    await ann.send_all(b"%d %b\n" % (n, b"x" * 50_000))
                    await read_until(ann, b'x"}}\n')
                    await read_until(bob, b'x"}}\n')
                await ann.send_all(b"still here\n")
                await read_until(bob, b"still here")
                await stalled.aclose()
            nursery.cancel_scope.cancel()


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while end not in data[-len(end) - 100 :]:
        data += await stream.receive_some(65_536)
    return data
