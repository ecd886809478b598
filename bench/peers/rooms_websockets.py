"""websockets' `broadcast()` on uvloop, the way its documentation recommends. rooms_websockets.py PORT"""

import asyncio
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from rooms import OK, Rooms

rooms: Rooms[ServerConnection] = Rooms()


async def handle(ws: ServerConnection) -> None:
    try:
        async for text in ws:
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send(OK)
            else:
                broadcast(*rooms.message(text))
    except ConnectionClosed:
        pass
    finally:
        rooms.leave(ws)


async def main() -> None:
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=4096):
        await asyncio.get_running_loop().create_future()


uvloop.run(main())
