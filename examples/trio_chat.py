"""A chat over plain TCP in a trio program, ten lines of hub: `python trio_chat.py`, then `nc 127.0.0.1 8000` in two terminals.

Each line goes to everybody as one JSON envelope. A client that does not read is told nothing more after a while, and is hung up
on; nobody waits for it.
"""

from __future__ import annotations

import json
import random
from functools import partial

import trio

from secureconnect.hub import Hub, Limits, QueueSink

ROOM = "room"
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


async def chat(hub: Hub, stream: trio.SocketStream) -> None:
    async def send(text: str) -> None:
        await stream.send_all(text.encode() + b"\n")

    async with QueueSink(send, hub.limits, closed_by=GONE) as sink:
        peer = hub.connect(sink)
        await peer.prepare(ROOM)
        peer.start([ROOM])
        async for data in stream:
            for line in data.decode(errors="replace").splitlines():
                hub.publish(ROOM, "said", json.dumps({"text": line}).encode())


async def main(
    port: int = 8000,
    limits: Limits | None = None,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    hub = Hub(node="one", random=random.random, limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        serve = partial(trio.serve_tcp, partial(chat, hub), port, host="127.0.0.1")
        task_status.started(await nursery.start(serve))


if __name__ == "__main__":
    trio.run(main)
