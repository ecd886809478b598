"""The client's shell: one task keeps a socket, one polls while there is none, one empties the outbox, one reads on in the log of
a conversation whose events found no room. The rules are in the pure modules beside it (`inbox`, `events`, `calls`, `outbox`,
`backoff`); here is only the waiting.

Socket and poll share the cursors, so going from one to the other in any order loses and repeats nothing: what both bring is
admitted once.
"""

from __future__ import annotations

import json
import math
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import anyio

from secureconnect.client.backoff import Backoff, PollPace
from secureconnect.client.calls import Calls, Json, encode
from secureconnect.client.errors import AuthenticationLost, ClientError, NotConnected, ServerRefused, leaves
from secureconnect.client.events import Event, Position, read_event
from secureconnect.client.http import ANSWER_S, POLL_WAIT_S, Api
from secureconnect.client.inbox import LOG_PREFIX, Inbox
from secureconnect.client.outbox import Outbox, Pending
from secureconnect.client.websocket import HandshakeRefused, SocketClosed, WebSocket, open_websocket

State = Literal["connecting", "live", "polling", "offline"]
"""`live`: by socket. `polling`: by long-poll, a socket is being tried. `offline`: neither, both are being tried."""

POLL_AFTER_FAILURES = 2
"""Sockets that could not be had in a row before polling begins; a mere restart should not bring every client's polls."""
RETRY_S = 0.5
"""Before a send goes out again whose answer was lost while there is a connection."""

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
        self._api = api
        self._inbox = Inbox(after)
        self._outbox = Outbox()
        self._outbox_changed = anyio.Event()
        self._socket: WebSocket | None = None
        self._calls = Calls()
        self._backoff = Backoff(random.random)
        self._state_changed = anyio.Event()
        self._may_poll = anyio.Event()
        self._was_added = False
        self._polling = anyio.CancelScope()
        self._draining_s: float | None = None

    # -- what users call
    def events(self) -> AsyncIterator[Event]:
        """Everything that happens in the subscribed channels, each numbered entry once and in order. Ends with the client.

        Beside the server's events there is `client.state` with `{state}` on each change of it. `gap` with `{channel, after,
        cause, seen}` says that what lies between `seen` and `after` does not come by itself: read it (`conversations.log`), or
        read the state anew. Who does not read holds up nothing: 1,000 events wait, further entries of conversations are read
        from their logs when there is room again, further ones of `user:` and `call:` channels become a `gap`, and what has no
        number (typing, presence) is dropped.
        """
        return self._inbox

    async def send(self, conversation_id: str, content: str, **fields: Json) -> Mapping[str, Any]:
        """Send a message and return it as stored, with its `sequence` and `ack`. Waits as long as it takes to connect.

        `fields`: `message_type`, `metadata`, `reply_to_message_id`, or your own `client_message_id`.
        Raises: ServerRefused (NotSendable before it leaves), OutboxFull, AuthenticationLost.
        Cancellation: the message stays in the outbox and will be sent.
        """
        key = fields.pop("client_message_id", None) or str(uuid.uuid4())
        params = {**fields, "client_message_id": key, "conversation_id": conversation_id, "content": content}
        encode(params, bytes_max=self._message_bytes_max)
        pending = self._outbox.add(params)
        self._wake_outbox()
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.result is not None
        return pending.result

    async def call(self, name: str, params: Mapping[str, Any] | None = None) -> Json:
        """Any operation of the server by its name (`conversations.list`), by socket when live, else by HTTP.

        Raises: ServerRefused (NotSendable before it leaves), NotConnected (no answer within the server's deadline of 30 s and
        5 s for the way, or the connection ended: it may have happened).
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
        return self._inbox.cursors.after()

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
            tasks.start_soon(self._read_on)
            dictated_s: float | None = 0.0
            while True:
                await anyio.sleep(self._backoff.next_s(dictated_s))
                dictated_s = await self._visit()
                if self._backoff.failures >= POLL_AFTER_FAILURES:
                    self._may_poll.set()

    async def _visit(self) -> float | None:
        """One socket from handshake to end; the answer is the server's wish for the pause, if it has one."""
        code, reason = 1006, ""
        try:
            await self._renew_token()
            async with open_websocket(self._socket_url(), token=self._present_token) as socket:
                return await self._serve(socket)
        except HandshakeRefused as refused:
            if refused.status == 401:
                self._token_refused()
            return refused.retry_after_s
        except SocketClosed as closed:
            code, reason = closed.code, closed.reason
            if code == 1008:
                self._token_refused()
            return None
        except (OSError, TimeoutError, NotConnected, ServerRefused):
            return None
        finally:
            self._socket = None
            self._calls.lost(code, reason)
            if self.state == "live":
                self._set_state("connecting")

    async def _serve(self, socket: WebSocket) -> float | None:
        self._draining_s = None
        with anyio.fail_after(10):
            self._take(await socket.receive())
        closed: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._subscribe, socket)
                tasks.start_soon(self._beat, socket)
                await self._read(socket)
        except* (ClientError, OSError) as group:
            causes = list(leaves(group))
            closed = next((cause for cause in causes if isinstance(cause, SocketClosed)), causes[0])
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
            self._take(text)

    async def _beat(self, socket: WebSocket) -> None:
        while True:
            await anyio.sleep(float(self.hello.get("heartbeat_s", 25)))
            with suppress(SocketClosed):  # the reader learns of it too, and perhaps why
                await socket.send(b'{"method":"ping"}')

    async def _subscribe(self, socket: WebSocket) -> None:
        await self._ask(socket, "subscribe", {"channels": self._wanted(), "after": self.cursors()})
        self._socket = socket
        self._backoff.reset()
        if self._may_poll.is_set():  # who waits for it waits for this one
            self._may_poll = anyio.Event()
        self._set_state("live")
        self._polling.cancel()
        self._wake_outbox()

    def _take(self, text: str) -> None:
        frame = json.loads(text)
        if "event" in frame:
            self._happened(read_event(frame))
            return
        result = frame.get("result")
        if isinstance(result, dict) and isinstance(result.get("channels"), dict):  # before the events that follow it
            self._inbox.placed(result["channels"], returns=len(self._inbox.cursors) > 0)
        self._calls.answered(frame)

    def _happened(self, event: Event) -> bool:
        """Whether it brought something."""
        if event.name == "hello":
            self.hello = event.data
        elif event.name == "degraded":
            self.degraded = event.data.get("features", {})
        elif event.name == "drain":
            self._draining_s = float(event.data.get("reconnect_in_ms", 0)) / 1000
        return event.name != "pong" and self._inbox.take(event) and event.name != "gap"

    async def _ask(self, socket: WebSocket, name: str, params: Mapping[str, Any]) -> Json:
        call = self._calls.begin()
        patience_s = ANSWER_S + (float(params["wait_s"]) if isinstance(params.get("wait_s"), int | float) else 0.0)
        try:
            text = encode({"id": call.number, "method": name, "params": params}, bytes_max=self._message_bytes_max)
            call.size = len(text)
            with anyio.move_on_after(patience_s):
                with suppress(SocketClosed):  # as above
                    await socket.send(text)
                await call.done.wait()
        finally:
            self._calls.end(call)
        if call.error is not None:
            raise call.error
        if not call.done.is_set():
            raise NotConnected(f"no answer to {name} within {patience_s:.0f} s")
        return call.result

    def _wanted(self) -> list[str] | str:
        """What to listen to; one's own channel comes anyway, and like the others it needs a cursor."""
        if self._channels is None:
            return "all"
        me = self.hello.get("user_id")
        return [*self._channels, *([f"user:{me}"] if me else [])]

    @property
    def _message_bytes_max(self) -> int | None:
        """What the server told; None: not known yet."""
        limit = self.hello.get("limits", {}).get("message_bytes_max")
        return limit if isinstance(limit, int) else None

    # -- without a socket
    async def _poll_while_no_socket(self) -> None:
        pace = PollPace(random.random)
        while True:
            await self._may_poll.wait()
            if self.state == "polling":  # else the poll also finds out whether there is a server
                await self._inbox.wait_room()
            began = anyio.current_time()
            try:
                news = await self._poll_once()
            except AuthenticationLost:
                self._token_refused()
                await anyio.sleep(1.0 + random.random())  # the next visit asks for a new one
            except (NotConnected, ServerRefused) as error:
                if self._socket is None:
                    self._set_state("offline")
                after = error.retry_after_s if isinstance(error, ServerRefused) else None
                await anyio.sleep(after or 1.0 + random.random())
            else:
                await anyio.sleep(pace.next_s(took_s=anyio.current_time() - began, news=news))

    async def _poll_once(self) -> bool:
        """Whether it brought news."""
        wait_s = POLL_WAIT_S if self.state == "polling" and not self._was_added else 0.0
        after = self.cursors()
        answer: Mapping[str, Any] = {}
        with anyio.CancelScope() as self._polling:  # a socket that goes live ends the wait
            answer = await self._api.poll(self._wanted(), after, token=self._present_token, wait_s=wait_s)
        if self._socket is None:
            self._set_state("polling")
            self._wake_outbox()
        events = [read_event(frame) for frame in answer.get("events", ())]
        news = [self._happened(event) for event in events]
        self._was_added = any(event.name == "conversation.added" for event in events)  # ask at once where it begins
        self._inbox.polled(answer.get("after", {}), returns=bool(after))
        return any(news)

    async def _read_on(self) -> None:
        """Read from their logs what found no room while the program did not read."""
        while True:
            channel, after, limit = await self._inbox.wait_behind()
            params = {"conversation_id": channel.removeprefix(LOG_PREFIX), "after": after, "limit": limit}
            try:
                is_done = self._inbox.read_on(channel, await self.call("conversations.log", params))
            except ServerRefused as refused:
                is_done = not refused.retryable
                if is_done:
                    self._inbox.give_up(channel, refused.code)
            except (NotConnected, AuthenticationLost):
                is_done = False
            await anyio.sleep(0.0 if is_done else 1.0 + random.random())

    # -- the outbox
    def _wake_outbox(self) -> None:
        self._outbox_changed.set()
        self._outbox_changed = anyio.Event()

    async def _empty_outbox(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                changed, now, due = self._outbox_changed, anyio.current_time(), None
                if self.state in ("live", "polling"):
                    while (pending := self._outbox.next(now)) is not None:
                        tasks.start_soon(self._deliver, pending)
                    due = self._outbox.wake_at(now)
                with anyio.move_on_after(math.inf if due is None else due - now):
                    await changed.wait()

    async def _deliver(self, pending: Pending) -> None:
        try:
            result = await self.call("messages.send", pending.params)
        except ServerRefused as refused:
            self._outbox.refused(pending, refused, anyio.current_time())
        except (NotConnected, AuthenticationLost):
            self._outbox.lost(pending, not_before=anyio.current_time() + RETRY_S)
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
        self._inbox.take(Event("client.state", "", {"state": state}))

    def close(self) -> None:
        """End `events()` behind what is there; called when the block of `connect` ends."""
        self._inbox.close()
