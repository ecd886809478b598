"""aiohttp on uvloop. rooms_aiohttp.py PORT

Best setting found: one encode per message, `send_frame` for each member without a task per member, no compression, no heartbeat.
"""

import sys

import uvloop
from aiohttp import WSMsgType, web

from rooms import OK, Rooms

rooms: Rooms[web.WebSocketResponse] = Rooms()


async def serve(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False, autoping=True)
    await ws.prepare(request)
    try:
        async for message in ws:
            text = message.data
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send_str(OK)
                continue
            members, body = rooms.message(text)
            frame = body.encode()
            for member in list(members):
                try:
                    await member.send_frame(frame, WSMsgType.TEXT)
                except ConnectionError:
                    rooms.leave(member)
    finally:
        rooms.leave(ws)
    return ws


app = web.Application()
app.router.add_get("/", serve)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=4096, loop=uvloop.new_event_loop())
