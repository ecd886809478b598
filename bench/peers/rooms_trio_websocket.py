"""trio-websocket. rooms_trio_websocket.py PORT

Best setting found: the publisher's task sends to each member in turn; a nursery per broadcast costs more.
"""

import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from rooms import OK, Rooms

rooms: Rooms[WebSocketConnection] = Rooms()


async def handle(request: WebSocketRequest) -> None:
    ws = await request.accept()
    try:
        while True:
            text = await ws.get_message()
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send_message(OK)
                continue
            members, body = rooms.message(text)
            for member in list(members):
                try:
                    await member.send_message(body)
                except ConnectionClosed:
                    rooms.leave(member)
    except ConnectionClosed:
        pass
    finally:
        rooms.leave(ws)


trio.run(lambda: serve_websocket(handle, "127.0.0.1", int(sys.argv[1]), ssl_context=None))
