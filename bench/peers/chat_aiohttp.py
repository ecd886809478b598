"""The chat of chat_store.py on aiohttp and uvloop. chat_aiohttp.py PORT FOLDER"""

import json
import sys

import jwt
import uvloop
from aiohttp import WSMsgType, web
from chat_store import Store, answer, dumps, enveloped, event_of, user_of

store = Store(f"{sys.argv[2]}/chat.db")
rooms: dict[str, dict[web.WebSocketResponse, None]] = {}


def user(request: web.Request) -> str:
    return user_of(request.headers["authorization"].removeprefix("Bearer "))


async def post_message(request: web.Request) -> web.Response:
    sender = user(request)
    body = await request.json()
    message = await store.append(body["conversation_id"], sender, body["content"])
    await broadcast(message)
    return web.json_response(enveloped(message), status=201, dumps=dumps)


async def get_messages(request: web.Request) -> web.Response:
    user(request)
    messages = await store.page(request.query["conversation_id"], 0, int(request.query.get("limit", 50)), newest=True)
    return web.json_response(enveloped({"messages": messages}), dumps=dumps)


async def poll(request: web.Request) -> web.Response:
    user(request)
    channel, _, after = request.query["after"].rpartition(":")
    conversation = channel.removeprefix("conversation:")
    messages = await store.newer(conversation, int(after), float(request.query.get("wait_s", 25)))
    position = messages[-1]["sequence"] if messages else int(after)
    return web.json_response(
        enveloped({"events": [event_of(message) for message in messages], "after": {channel: position}}), dumps=dumps
    )


async def echo(request: web.Request) -> web.Response:
    return web.json_response(await request.json(), dumps=dumps)


async def broadcast(message: dict) -> None:
    frame = dumps(event_of(message)).encode()
    for member in list(rooms.get(message["conversation_id"], ())):
        await member.send_frame(frame, WSMsgType.TEXT)


async def command(ws: web.WebSocketResponse, sender: str, mine: set[str], text: str) -> None:
    frame = json.loads(text)
    params = frame["params"]
    if frame["method"] == "subscribe":
        for channel in params["channels"]:
            rooms.setdefault(channel.removeprefix("conversation:"), {})[ws] = None
            mine.add(channel.removeprefix("conversation:"))
        await ws.send_str(answer(frame["id"], {"channels": params["channels"]}))
    elif frame["method"] == "messages.send":
        message = await store.append(params["conversation_id"], sender, params["content"])
        await ws.send_str(answer(frame["id"], message | {"ack": "stored", "duplicate": False}))
        await broadcast(message)


async def socket(request: web.Request) -> web.WebSocketResponse:
    try:
        sender = user_of(request.query["token"])
    except jwt.InvalidTokenError:
        raise web.HTTPUnauthorized from None
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    await ws.send_str('{"event":"hello","data":{}}')
    mine: set[str] = set()
    try:
        async for message in ws:
            await command(ws, sender, mine, message.data)
    finally:
        for room in mine:
            rooms[room].pop(ws, None)
    return ws


async def start(_: web.Application) -> None:
    await store.open()


app = web.Application()
app.on_startup.append(start)
app.add_routes(
    [
        web.post("/v1/messages", post_message),
        web.get("/v1/messages", get_messages),
        web.get("/v1/realtime/poll", poll),
        web.post("/echo", echo),
        web.get("/v1/ws", socket),
    ]
)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=4096, loop=uvloop.new_event_loop())
