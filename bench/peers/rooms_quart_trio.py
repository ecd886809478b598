"""quart-trio on hypercorn's trio worker. rooms_quart_trio.py PORT"""

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

from rooms import OK, Rooms

app = QuartTrio(__name__)
rooms: Rooms[object] = Rooms()


@app.websocket("/")
async def socket() -> None:
    ws = websocket._get_current_object()
    try:
        while True:
            text = await ws.receive()
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send(OK)
                continue
            members, body = rooms.message(text)
            for member in list(members):
                await member.send(body)
    finally:
        rooms.leave(ws)


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.websocket_ping_interval = None
config.accesslog = None
config.errorlog = None
config.backlog = 4096
trio.run(serve, app, config)
