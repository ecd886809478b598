"""websockets.trio. rooms_websockets_trio.py PORT

It has no `broadcast()` for trio: the publisher's task sends to each member in turn.
"""

import sys

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.server import ServerConnection, serve

from rooms import OK, Rooms

rooms: Rooms[ServerConnection] = Rooms()


async def handle(ws: ServerConnection) -> None:
    try:
        async for text in ws:
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send(OK)
                continue
            members, body = rooms.message(text)
            for member in list(members):
                try:
                    await member.send(body)
                except ConnectionClosed:
                    rooms.leave(member)
    except ConnectionClosed:
        pass
    finally:
        rooms.leave(ws)


trio.run(lambda: serve(handle, int(sys.argv[1]), host="127.0.0.1", compression=None, ping_interval=None))
