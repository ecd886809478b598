"""The client's shell: one task keeps a socket, one polls while there is none, one empties the outbox. The rules are in the pure
modules beside it (`events`, `outbox`, `backoff`); here is only the waiting.

Socket and poll share the cursors, so going from one to the other in any order loses and repeats nothing: what both bring is
admitted once.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, TypeAlias

import anyio
import httpx

from secureconnect.client.backoff import Backoff
from secureconnect.client.errors import AuthenticationLost, NotConnected, ServerRefused
from secureconnect.client.events import Cursors, Event, Position, read_event
from secureconnect.client.http import Api
from secureconnect.client.outbox import Outbox, Pending
from secureconnect.client.websocket import HandshakeRefused, SocketClosed, WebSocket, open_websocket

State = Literal["connecting", "live", "polling", "offline"]
"""`live`: by socket. `polling`: by long-poll, a socket is being tried. `offline`: neither, both are being tried."""

EVENTS_MAX = 1_000
"""Events that wait for the reader of `events()`; beyond that we stop reading from the server, which keeps them."""
POLL_AFTER_FAILURES = 2
"""Sockets that could not be had in a row before polling begins; a mere restart should not bring every client's polls."""
SUBSCRIBE_CHANNELS_MAX = 500

Json: TypeAlias = Any
"""What the server's JSON holds: the operation's own result."""
Token = str | Callable[[], Awaitable[str]]


class Client:
    """A connection to a server that outlives its sockets. Made by `connect`."""

    def __init__(
        self, url: str, *, token: Token, channels: Sequence[str] | None, after: Mapping[str, Position], api: Api
    ) -> None:
        self.url = url.rstrip("/")
        self.state: State = "connecting"
        self.hello: Mapping[str, Any] = {}
        self.degraded: Mapping[str, Any] = {}
        self._token = token
        self._present_token = token if isinstance(token, str) else ""
        self._channels = channels
        self._cursors = Cursors(after)
        self._api = api
        self._outbox = Outbox()
        self._outbox_changed = anyio.Event()
        self._socket: WebSocket | None = None
        self._calls: dict[str, tuple[anyio.Event, list[Mapping[str, Any]]]] = {}
        self._numbers = 0
        self._backoff = Backoff(random.random)
        self._state_changed = anyio.Event()
        self._order = anyio.Lock()
        self._polling = anyio.CancelScope()
        self._draining_s: float | None = None
        self._events_in, self._events_out = anyio.create_memory_object_stream[Event](EVENTS_MAX)

    # -- what users call
    def events(self) -> AsyncIterator[Event]:
        """Everything that happens in the subscribed channels, each numbered entry once and in order.

        Beside the server's events there is `client.state` with `{state}` on each change of it. Ends with the client.
        Raises: AuthenticationLost.
        """
        return self._events_out

    async def send(self, conversation_id: str, content: str, **fields: Json) -> Mapping[str, Any]:
        """Send a message and return it as stored, with its `sequence` and `ack`. Waits as long as it takes to connect.

        `fields`: `message_type`, `metadata`, `reply_to_message_id`, or your own `client_message_id`.
        Raises: ServerRefused, OutboxFull, AuthenticationLost.
        Cancellation: the message stays in the outbox and will be sent.
        """
        params = {"client_message_id": str(uuid.uuid4()), **fields, "conversation_id": conversation_id, "content": content}
        pending = self._outbox.add(params)
        self._wake_outbox()
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.result is not None
        return pending.result

    async def call(self, name: str, params: Mapping[str, Any] | None = None) -> Json:
        """Any operation of the server by its name (`conversations.list`), by socket when live, else by HTTP.

        Raises: ServerRefused, NotConnected (the answer was lost: it may have happened).
        """
        socket = self._socket
        if socket is None:
            return await self._api.call(name, params or {}, token=self._present_token)
        return await self._ask(socket, name, params or {})

    @property
    def pending(self) -> int:
        """Sends without a known outcome."""
        return len(self._outbox)

    def cursors(self) -> dict[str, Position]:
        """Where each channel was seen to; give it to the next `connect` as `after`."""
        return self._cursors.after()

    async def wait_state(self, *states: State) -> State:
        """Until the state is one of `states`."""
        while self.state not in states:
            await self._state_changed.wait()
        return self.state

    # -- the socket
    async def run(self) -> None:
        """Keep connected until cancelled. Raises: AuthenticationLost."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._poll_while_no_socket)
            tasks.start_soon(self._empty_outbox)
            dictated_s: float | None = 0.0
            while True:
                await anyio.sleep(self._backoff.next_s(dictated_s))
                dictated_s = await self._visit()

    async def _visit(self) -> float | None:
        """One socket from handshake to end; the answer is the server's wish for the pause, if it has one."""
        try:
            await self._renew_token()
            async with open_websocket(self._socket_url(), token=self._present_token) as socket:
                return await self._serve(socket)
        except HandshakeRefused as refused:
            if refused.status == 401:
                self._token_refused()
            return refused.retry_after_s
        except SocketClosed as closed:
            if closed.code == 1008:
                self._token_refused()
            return None
        except (OSError, TimeoutError, NotConnected, ServerRefused):
            return None
        finally:
            self._socket_is_gone()

    async def _serve(self, socket: WebSocket) -> float | None:
        self._draining_s = None
        with anyio.fail_after(10):
            await self._take(await socket.receive())
        closed: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._subscribe, socket)
                tasks.start_soon(self._beat, socket)
                await self._read(socket)
        except* (SocketClosed, NotConnected) as group:
            closed = _first(group)
        if closed is not None and self._draining_s is None:
            raise closed
        return self._draining_s

    async def _read(self, socket: WebSocket) -> None:
        silence_s = 2.0 * float(self.hello.get("heartbeat_s", 25)) + 5.0
        while True:
            with anyio.move_on_after(silence_s) as silent:
                text = await socket.receive()
            if silent.cancelled_caught:
                raise SocketClosed(1006, "silent")
            await self._take(text)

    async def _beat(self, socket: WebSocket) -> None:
        while True:
            await anyio.sleep(float(self.hello.get("heartbeat_s", 25)))
            await socket.send('{"method":"ping"}')

    async def _subscribe(self, socket: WebSocket) -> None:
        channels: Sequence[str] | str = "all" if self._channels is None else self._channels
        params = {"channels": channels, "after": self._cursors.after()}
        number, box = self._begin_call()
        self._socket = socket
        await socket.send(json.dumps({"id": number, "method": "subscribe", "params": params}))
        await self._end_call(number, box)
        self._backoff.reset()
        self._set_state("live")
        self._polling.cancel()
        self._wake_outbox()

    async def _take(self, text: str) -> None:
        frame = json.loads(text)
        if "event" in frame:
            await self._happened(read_event(frame))
        elif (waiting := self._calls.get(str(frame.get("id")))) is not None:
            if "result" in frame and isinstance(frame["result"], dict) and "channels" in frame["result"]:
                self._placed(frame["result"]["channels"])  # before the events that follow it
            waiting[1].append(frame)
            waiting[0].set()

    def _placed(self, places: Mapping[str, Any]) -> None:
        for channel, place in places.items():
            if "error" not in place and "sequence" in place:
                self._cursors.begin(channel, place["sequence"], forced=not place.get("recovered", True))

    async def _happened(self, event: Event) -> None:
        if event.name == "hello":
            self.hello = event.data
        elif event.name == "degraded":
            self.degraded = event.data.get("features", {})
        elif event.name == "drain":
            self._draining_s = float(event.data.get("reconnect_in_ms", 0)) / 1000
        elif event.name == "unsubscribed":
            self._cursors.forget(str(event.data.get("channel", event.channel)))
        async with self._order:  # socket and poll may both bring events: what is admitted first is shown first
            if self._cursors.admit(event):
                await self._events_in.send(event)

    # -- calls over the socket
    def _begin_call(self) -> tuple[str, tuple[anyio.Event, list[Mapping[str, Any]]]]:
        self._numbers += 1
        number = f"c{self._numbers}"
        box: tuple[anyio.Event, list[Mapping[str, Any]]] = (anyio.Event(), [])
        self._calls[number] = box
        return number, box

    async def _end_call(self, number: str, box: tuple[anyio.Event, list[Mapping[str, Any]]]) -> Json:
        try:
            await box[0].wait()
        finally:
            self._calls.pop(number, None)
        if not box[1]:
            raise NotConnected("the connection ended before the answer")
        answer = box[1][0]
        if "error" in answer:
            raise ServerRefused(answer["error"])
        return answer.get("result")

    async def _ask(self, socket: WebSocket, name: str, params: Mapping[str, Any]) -> Json:
        number, box = self._begin_call()
        try:
            await socket.send(json.dumps({"id": number, "method": name, "params": params}))
        except SocketClosed as closed:
            self._calls.pop(number, None)
            raise NotConnected(str(closed)) from closed
        return await self._end_call(number, box)

    def _socket_is_gone(self) -> None:
        self._socket = None
        self._outbox.lost()
        for event, _ in list(self._calls.values()):
            event.set()
        if self.state == "live":
            self._set_state("connecting")

    # -- without a socket
    async def _poll_while_no_socket(self) -> None:
        while True:
            if self._socket is not None or self._backoff.failures <= POLL_AFTER_FAILURES:
                with anyio.move_on_after(0.25):
                    await self._state_changed.wait()
                continue
            try:
                await self._poll_once()
            except (NotConnected, ServerRefused) as error:
                if self._socket is None:
                    self._set_state("offline")
                after = error.retry_after_s if isinstance(error, ServerRefused) else None
                await anyio.sleep(after or 1.0 + random.random())

    async def _poll_once(self) -> None:
        channels = "all" if self._channels is None else ",".join(self._channels)
        wait_s = 25.0 if self.state == "polling" else 0.0
        answer: Mapping[str, Any] = {}
        with anyio.CancelScope() as self._polling:  # a socket that goes live ends the wait
            answer = await self._api.poll(channels, self._cursors.after(), token=self._present_token, wait_s=wait_s)
        if self._socket is None:
            self._set_state("polling")
            self._wake_outbox()
        for frame in answer.get("events", []):
            await self._happened(read_event(frame))
        for channel, position in answer.get("after", {}).items():
            self._cursors.begin(channel, position)

    # -- the outbox
    def _wake_outbox(self) -> None:
        self._outbox_changed.set()
        self._outbox_changed = anyio.Event()

    async def _empty_outbox(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                changed = self._outbox_changed
                if self.state in ("live", "polling"):
                    while (pending := self._outbox.next(anyio.current_time())) is not None:
                        tasks.start_soon(self._deliver, pending)
                due = self._outbox.wake_at()
                with anyio.move_on_after(30 if due is None else max(0.0, due - anyio.current_time())):
                    await changed.wait()

    async def _deliver(self, pending: Pending) -> None:
        try:
            result = await self.call("messages.send", pending.params)
        except ServerRefused as refused:
            self._outbox.refused(pending, refused, anyio.current_time())
        except (NotConnected, AuthenticationLost):
            self._outbox.lost()
            await anyio.sleep(0.5)
        else:
            self._outbox.answered(pending, result)
        self._wake_outbox()

    # -- tokens and state
    async def _renew_token(self) -> None:
        if not isinstance(self._token, str):
            self._present_token = await self._token()

    def _token_refused(self) -> None:
        """With a callable the next visit asks it for a new token; a fixed one is spent."""
        if isinstance(self._token, str):
            lost = AuthenticationLost("the server does not take this token")
            self._outbox.fail_all(lost)
            raise lost

    def _socket_url(self) -> str:
        return "ws" + self.url.removeprefix("http") + "/v1/ws"

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._state_changed.set()
        self._state_changed = anyio.Event()
        with suppress(anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._events_in.send_nowait(Event("client.state", "", {"state": state}))

    def close(self) -> None:
        """End `events()`; called when the block of `connect` ends."""
        self._events_in.close()
        self._events_out.close()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group wrapped: the tasks fail for one reason, the first one tells it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token,
    channels: Sequence[str] | None = None,
    after: Mapping[str, Position] | None = None,
) -> AsyncIterator[Client]:
    """A client for the server at `url` (`http://host:port`), connected and kept connected until the block ends.

    `token`: an access token, or an async function that gives a fresh one before each connection.
    `channels`: `conversation:<id>` names; None: all conversations of the user, also those joined later.
    `after`: positions from an earlier client's `cursors()`.
    Raises: AuthenticationLost out of the block when no token is taken any more.
    """
    async with httpx.AsyncClient(base_url=url.rstrip("/")) as http:
        client = Client(url, token=token, channels=channels, after=after or {}, api=Api(http))
        lost: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.run)
                try:
                    yield client
                finally:
                    tasks.cancel_scope.cancel()
                    client.close()
        except* AuthenticationLost as group:
            lost = _first(group)
        if lost is not None:
            raise lost
