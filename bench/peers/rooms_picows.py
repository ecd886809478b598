"""picows on uvloop: callbacks, `send` straight to the transport. rooms_picows.py PORT"""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from rooms import OK, Rooms

rooms: Rooms[WSTransport] = Rooms()


class Listener(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            if frame.msg_type is WSMsgType.CLOSE:
                transport.disconnect()
            return
        text = frame.get_payload_as_utf8_text()
        if text[0] == "s":
            rooms.subscribe(transport, text)
            transport.send(WSMsgType.TEXT, OK.encode())
            return
        members, body = rooms.message(text)
        payload = body.encode()
        for member in members:
            member.send(WSMsgType.TEXT, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        rooms.leave(transport)


def listener(request: WSUpgradeRequest) -> WSListener:
    return Listener()


async def main() -> None:
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), enable_auto_ping=False, backlog=4096)
    await server.serve_forever()


uvloop.run(main())
