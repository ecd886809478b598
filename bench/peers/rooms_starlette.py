"""Starlette on uvicorn with httptools and uvloop. rooms_starlette.py PORT websockets-sansio|wsproto"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rooms import OK, Rooms

rooms: Rooms[WebSocket] = Rooms()


async def serve(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            text = await ws.receive_text()
            if text[0] == "s":
                rooms.subscribe(ws, text)
                await ws.send_text(OK)
                continue
            members, body = rooms.message(text)
            message = {"type": "websocket.send", "text": body}
            for member in list(members):
                await member.send(message)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        rooms.leave(ws)


if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/", serve)]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ws=sys.argv[2],
        http="httptools",
        loop="uvloop",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="error",
        access_log=False,
        backlog=4096,
    )
