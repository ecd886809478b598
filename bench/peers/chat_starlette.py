"""The chat of chat_store.py on Starlette and uvicorn. chat_starlette.py PORT FOLDER httptools|h11 uvloop|asyncio"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
import uvicorn
from chat_store import Store, answer, dumps, enveloped, event_of, user_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

store = Store(f"{sys.argv[2]}/chat.db")
rooms: dict[str, dict[WebSocket, None]] = {}


def user(request: Request) -> str:
    return user_of(request.headers["authorization"].removeprefix("Bearer "))


async def post_message(request: Request) -> JSONResponse:
    sender = user(request)
    body = await request.json()
    message = await store.append(body["conversation_id"], sender, body["content"])
    await broadcast(message)
    return JSONResponse(enveloped(message), 201)


async def get_messages(request: Request) -> JSONResponse:
    user(request)
    query = request.query_params
    messages = await store.page(query["conversation_id"], 0, int(query.get("limit", 50)), newest=True)
    return JSONResponse(enveloped({"messages": messages}))


async def poll(request: Request) -> JSONResponse:
    user(request)
    query = request.query_params
    channel, _, after = query["after"].rpartition(":")
    conversation = channel.removeprefix("conversation:")
    messages = await store.newer(conversation, int(after), float(query.get("wait_s", 25)))
    position = messages[-1]["sequence"] if messages else int(after)
    return JSONResponse(enveloped({"events": [event_of(message) for message in messages], "after": {channel: position}}))


async def echo(request: Request) -> JSONResponse:
    return JSONResponse(await request.json())


async def broadcast(message: dict) -> None:
    text = dumps(event_of(message))
    for member in list(rooms.get(message["conversation_id"], ())):
        await member.send_text(text)


async def command(ws: WebSocket, sender: str, mine: set[str], text: str) -> None:
    frame = json.loads(text)
    params = frame["params"]
    if frame["method"] == "subscribe":
        for channel in params["channels"]:
            rooms.setdefault(channel.removeprefix("conversation:"), {})[ws] = None
            mine.add(channel.removeprefix("conversation:"))
        await ws.send_text(answer(frame["id"], {"channels": params["channels"]}))
    elif frame["method"] == "messages.send":
        message = await store.append(params["conversation_id"], sender, params["content"])
        await ws.send_text(answer(frame["id"], message | {"ack": "stored", "duplicate": False}))
        await broadcast(message)


async def socket(ws: WebSocket) -> None:
    try:
        sender = user_of(ws.query_params["token"])
    except jwt.InvalidTokenError:
        await ws.close(1008)
        return
    await ws.accept()
    await ws.send_text('{"event":"hello","data":{}}')
    mine: set[str] = set()
    try:
        while True:
            await command(ws, sender, mine, await ws.receive_text())
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        for room in mine:
            rooms[room].pop(ws, None)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    await store.open()
    yield


app = Starlette(
    routes=[
        Route("/v1/messages", post_message, methods=["POST"]),
        Route("/v1/messages", get_messages),
        Route("/v1/realtime/poll", poll),
        Route("/echo", echo, methods=["POST"]),
        WebSocketRoute("/v1/ws", socket),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http=sys.argv[3],
        loop=sys.argv[4],
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="error",
        access_log=False,
        backlog=4096,
    )
