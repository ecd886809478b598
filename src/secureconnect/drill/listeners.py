"""Who listens during an experiment: sockets, some of them slow, and pollers. Each begins at number 1 and comes back where it was.

They share no code with the product's own client, so what that would mend by itself is seen here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final
from urllib.parse import quote

import trio
import trio_websocket
from trio_websocket import WebSocketConnection, open_websocket_url

from secureconnect.drill.face import PATIENCE_S, Face
from secureconnect.drill.record import NO_ANSWER, Op, Record, Seen, Subscriber, Told

CONNECT_S: Final = 10.0
RETRY_S: Final = 0.5
POLL_WAIT_S: Final = 5.0
SLOW_S: Final = 0.03
"""A slow reader's pause after each event: it falls behind some thirty messages a second, and catches up when they end."""
PATH: Final = "/v1/ws"
Lost = (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, OSError, trio.TooSlowError)
"""How a connection fails or ends."""


class Listener:
    """A socket at one node that listens to conversations, from their first entry on."""

    def __init__(self, subscriber: Subscriber, url: str, token: str, record: Record, conversations: Sequence[str]) -> None:
        self.subscriber = subscriber
        self._url, self._token, self._record = url, token, record
        self.after = dict.fromkeys((f"conversation:{one}" for one in conversations), 0)
        self.is_hurried = False
        """Set when the load has ended: a slow reader then reads on at once."""

    async def run(self) -> None:
        """Until cancelled; connects again for ever."""
        is_first = True
        while True:
            with suppress(*Lost):
                if not is_first:
                    self._record.reconnects += 1
                async with _opened(self._url, self._token) as socket:
                    await self._listen(socket)
            is_first = False
            await trio.sleep(RETRY_S)

    async def _listen(self, socket: WebSocketConnection) -> None:
        await self._subscribe(socket)
        while True:
            frame = json.loads(await socket.get_message())
            if "error" in frame:
                raise OSError(f"refused: {frame['error']}")
            match frame.get("event"):
                case "gap":
                    await self._subscribe(socket)
                case "hello":
                    self._degraded(frame["data"].get("degraded") or {}, is_change=False)
                case "degraded":
                    self._degraded(frame["data"].get("features") or {}, is_change=True)
                case _ if frame.get("channel") in self.after and frame.get("sequence") is not None:
                    await self._saw(frame["channel"], frame["sequence"])

    async def _subscribe(self, socket: WebSocketConnection) -> None:
        await socket.send_message(
            json.dumps({"id": 1, "method": "subscribe", "params": {"channels": list(self.after), "after": self.after}})
        )

    async def _saw(self, channel: str, sequence: int) -> None:
        self._record.seen.append(Seen(self.subscriber.name, channel.removeprefix("conversation:"), sequence, trio.current_time()))
        self.after[channel] = max(sequence, self.after[channel])
        if not self.subscriber.is_prompt and not self.is_hurried:
            await trio.sleep(SLOW_S)

    def _degraded(self, features: dict[str, object], *, is_change: bool) -> None:
        if self.subscriber.is_prompt and (is_change or features):
            self._record.told.append(Told(self.subscriber.node, trio.current_time(), tuple(sorted(features))))


class Poller:
    """A client without a socket: it asks one node after the other and brings its positions along."""

    def __init__(self, subscriber: Subscriber, faces: Sequence[Face], token: str, conversations: Sequence[str]) -> None:
        self.subscriber = subscriber
        self._faces, self._token = faces, token
        self.after = dict.fromkeys((f"conversation:{one}" for one in conversations), 0)

    async def run(self) -> None:
        """Until cancelled."""
        turn = 0
        while True:
            face = self._faces[turn % len(self._faces)]
            turn += 1
            after = ",".join(f"{channel}:{position}" for channel, position in self.after.items())
            query = f"channels={quote(','.join(self.after))}&after={quote(after)}&wait_s={POLL_WAIT_S:g}"
            answer = await face.ask("poll", "GET", f"/v1/realtime/poll?{query}", token=self._token, wait_s=POLL_WAIT_S)
            if answer.is_good:
                self._take(face.record, answer.data["events"], answer.data["after"])
            else:
                await trio.sleep(min(answer.retry_s or RETRY_S, 2.0))

    def _take(self, record: Record | None, events: list[dict[str, Any]], after: dict[str, Any]) -> None:
        for event in events:
            if record is not None and event.get("channel") in self.after and event.get("sequence") is not None:
                name = str(event["channel"]).removeprefix("conversation:")
                record.seen.append(Seen(self.subscriber.name, name, event["sequence"], trio.current_time()))
        self.after.update({channel: int(position) for channel, position in after.items() if channel in self.after})


class Pinger:
    """An open socket that asks for a `pong` at a steady rate: it needs nothing but its node."""

    def __init__(self, node: str, url: str, token: str, record: Record, *, per_s: float) -> None:
        self._node, self._url, self._token, self._record, self._period_s = node, url, token, record, 1 / per_s

    async def run(self) -> None:
        """Until cancelled; connects again for ever."""
        while True:
            with suppress(*Lost):
                async with _opened(self._url, self._token) as socket:
                    await self._ping(socket)
            self._record.reconnects += 1
            await trio.sleep(RETRY_S)

    async def _ping(self, socket: WebSocketConnection) -> None:
        due_s = trio.current_time()
        while True:
            due_s = max(due_s + self._period_s, trio.current_time())
            await trio.sleep_until(due_s)
            began_s, status = trio.current_time(), NO_ANSWER
            try:
                with trio.fail_after(PATIENCE_S):
                    await socket.send_message('{"method":"ping"}')
                    while '"pong"' not in await socket.get_message():
                        """Other events may come first."""
                status = 200
            finally:
                if status or not _is_cancelled():
                    self._record.ops.append(Op("ping", self._node, began_s, trio.current_time() - began_s, status))


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() == -float("inf")


def _opened(url: str, token: str) -> AbstractAsyncContextManager[WebSocketConnection]:
    headers = [(b"Authorization", f"Bearer {token}".encode())]
    opened: AbstractAsyncContextManager[WebSocketConnection] = open_websocket_url(
        url.replace("http", "ws", 1) + PATH, extra_headers=headers, connect_timeout=CONNECT_S, disconnect_timeout=1.0
    )
    return opened
