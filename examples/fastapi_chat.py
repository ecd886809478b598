"""A chat room in a FastAPI application: one WebSocket route, ten lines of hub.

    pip install secureconnect fastapi uvicorn
    uvicorn fastapi_chat:app

Connect to ws://127.0.0.1:8000/rooms/lobby and send text. Every message arrives as one JSON envelope with a `position`; who comes
back within a minute with `?after=<position>` gets what it missed first. A client that does not read costs the others nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from secureconnect.hub import Hub, QueueSink


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        app.state.hub = Hub(node="one", random=random.random)
        await tasks.start(app.state.hub.run)
        yield
        tasks.cancel_scope.cancel()


app = FastAPI(lifespan=lifespan)


@app.websocket("/rooms/{name}")
async def room(socket: WebSocket, name: str, after: str | None = None) -> None:
    await socket.accept()
    hub: Hub = socket.app.state.hub
    async with QueueSink(socket.send_text, hub.limits, closed_by=(WebSocketDisconnect, OSError)) as sink:
        peer = hub.connect(sink)
        place = await peer.prepare(name, after=after)
        await socket.send_json({"event": "joined", "recovered": place.recovered, "position": place.position})
        peer.start([name])
        async for text in socket.iter_text():
            hub.publish(name, "said", json.dumps({"text": text}).encode())
    if sink.reason == "slow_consumer":
        await socket.close(1013, sink.reason)
