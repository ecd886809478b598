"""python-socketio on uvicorn with httptools and uvloop, WebSocket transport only. rooms_socketio.py PORT"""

import sys

import socketio
import uvicorn

sio = socketio.AsyncServer(
    async_mode="asgi", ping_interval=3600, ping_timeout=3600, http_compression=False, transports=["websocket"]
)


@sio.on("s")
async def subscribe(sid: str, names: str) -> None:
    for room in names.split(","):
        await sio.enter_room(sid, room)
    await sio.emit("ok", to=sid)


@sio.on("p")
async def message(sid: str, room: str, body: str) -> None:
    await sio.emit("m", body, room=room)


uvicorn.run(
    socketio.ASGIApp(sio),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    ws="websockets-sansio",
    http="httptools",
    loop="uvloop",
    ws_ping_interval=None,
    ws_per_message_deflate=False,
    log_level="error",
    access_log=False,
    backlog=4096,
)
