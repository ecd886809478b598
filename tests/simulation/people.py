"""A client of the simulated world: speaks the real protocol over sockets and polls, resumes, retries, pauses, gives up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import trio
from tests.simulation.inbox import Inbox
from tests.simulation.outgoing import Outgoing
from tests.simulation.requests import AGAIN, error_of, exchange

from secureconnect.ids import UserId
from secureconnect.testing.simulated_network import SimulatedTransport
from secureconnect.testing.socket_client import CLOSE, PING, PONG, TEXT, Ended, SocketClient, frame

if TYPE_CHECKING:
    from tests.simulation.simulator import Simulator

PATIENCE_S = 36.0
"""How long a client waits for an answer of HTTP."""
HELLO_S = 12.0
WRONG_CODES = frozenset({1002, 1003, 1007, 1009, 1011})
"""Close codes that say that this client did something wrong, or the server."""


class Person:
    """One user with one device."""

    def __init__(self, sim: Simulator, name: str, user: UserId, token: str) -> None:
        self.sim, self.world, self.cluster = sim, sim.world, sim.cluster
        self.name, self.user, self.token = name, user, token
        self.chance = self.world.rng(f"person {name}")
        self.inbox, self.outgoing = Inbox(self), Outgoing(self)
        self.paused_until_s = 0.0
        """Does not read."""
        self.slow_until_s = 0.0
        """Reads a few bytes a second."""
        self.cut_until_s = 0.0
        """The way to it is broken."""
        self.transport: SimulatedTransport | None = None
        self.host: str | None = None
        self.follows_all = self.chance.random() < 0.3
        self.is_steady = self.chance.random() < (0.9 if sim.is_quiet else 0.4)
        """Stays connected and never asks again: only what the server brings by itself counts."""
        self.polls_share = 0.0 if self.is_steady else self.chance.choice((0.0, 0.25, 0.25, 1.0))
        self.is_stubborn = self.chance.random() < 0.3
        self._used = token
        """The token of the present connection or request."""
        self._say: list[bytes] = []
        self._asked: dict[int, tuple[str, object]] = {}
        self._last_id = 0
        self._write = trio.Event()

    @property
    def hindered_until_s(self) -> float:
        """Nothing can be late before."""
        return max(self.paused_until_s, self.slow_until_s, self.cut_until_s)

    def is_excused(self, error: Mapping[str, Any]) -> bool:
        """Whether a server may refuse so: it will do better later, the session was ended, or the server's clock is wrong."""
        if error.get("retryable"):
            return True
        if error["code"] in {"TOKEN_REVOKED", "UNAUTHORIZED"}:
            return self._used in self.sim.ended
        return error["code"] == "TOKEN_EXPIRED" and self.has_wrong_clock(self.host)

    def has_wrong_clock(self, host: str | None) -> bool:
        """Whether this node may refuse a good token, or did so a while ago."""
        return host is not None and self.world.now() < self.cluster.hosts[host].clock_refuses_until_s

    # -- the life

    async def live(self) -> None:
        while not self.sim.is_ending:
            host = self.chance.choice(list(self.cluster.hosts))
            polls = self.chance.random() < self.polls_share
            try:
                if polls:
                    await self._poll(host)
                else:
                    await self._visit(host)
            except (OSError, Ended) as error:
                self.world.trace(self.name, "lost", host, error)
            finally:
                self._gone()
            await trio.sleep(self.chance.uniform(0.01, 0.3))

    def _gone(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.transport = self.host = None
        self._say, self._asked = [], {}
        self.inbox.disconnected()

    # -- by socket

    async def _visit(self, host: str) -> None:
        client: SocketClient | None = None
        with trio.move_on_after(HELLO_S):
            client = await self._enter(host)
        if client is None:
            return
        until_s = self.world.now() + (1e9 if self.is_steady else self.chance.choice((3.0, 20.0, 1e9)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer, client)
            nursery.start_soon(self._manners, until_s, nursery.cancel_scope)
            try:
                await self._read(client)
            except (OSError, Ended) as error:
                self.world.trace(self.name, "ended", error)
            nursery.cancel_scope.cancel()

    async def _enter(self, host: str) -> SocketClient:
        self.transport = await self.cluster.net.connect(self.name, host)
        self.host = host
        client, self._used = SocketClient(self.transport), self.token
        if self.chance.random() < 0.5:
            answer = await client.upgrade(headers={"Authorization": f"Bearer {self._used}"})
        else:
            answer = await client.upgrade()
            if answer.status == 101:
                await client.say({"id": 0, "method": "auth", "params": {"token": self._used}})
        if answer.status != 101:
            self._judge_refusal("upgrade", answer.status)
            raise Ended(answer.status, "refused")
        self._subscribe()
        return client

    def _subscribe(self) -> None:
        """Ask for everything from one's own position on; a place that began elsewhere is given up before."""
        behind = [channel for channel, heard in self.inbox.heard.items() if heard.is_behind]
        if behind:
            self.say("unsubscribe", behind, channels=behind)
        after = self.inbox.after(self.inbox.channels())
        if after or self.follows_all:
            self.say("subscribe", after, channels="all" if self.follows_all else list(after), after=after)

    def say(self, method: str, note: object = None, **params: object) -> None:
        """Send a command over the present socket, if there is one. `note` comes back with the answer."""
        if self.transport is None:
            return
        self._last_id += 1
        self._asked[self._last_id] = (method, note)
        self._push(frame(msgspec.json.encode({"id": self._last_id, "method": method, "params": params})))

    def ask(self, key: str) -> None:
        """Send a message over the present socket, if there is one."""
        if self.transport is not None and self.host is not None and key in self.outgoing.pending:
            self.say("messages.send", key, **self.outgoing.body(key))

    def _push(self, data: bytes) -> None:
        self._say.append(data)
        self._write.set()

    async def _writer(self, client: SocketClient) -> None:
        while True:
            try:
                while self._say:
                    await client.send(self._say.pop(0))
            except OSError:
                return  # the reader sees it too
            self._write = trio.Event()
            await self._write.wait()

    async def _manners(self, until_s: float, scope: trio.CancelScope) -> None:
        """What a client does from time to time."""
        while not self.sim.is_ending and self.world.now() < until_s:
            for key in self.outgoing.due():
                self.ask(key)
            is_asking = any(method == "subscribe" for method, _ in self._asked.values())
            is_curious = not self.is_steady and self.chance.random() < 0.05
            if (self.inbox.missing() or is_curious) and not is_asking:
                self._subscribe()
            await trio.sleep(0.5)
        if self.transport is not None and self.chance.random() < 0.7:
            self.world.sometimes("left politely")
            self._push(frame((1000).to_bytes(2, "big"), CLOSE))
            await trio.sleep(3)  # the reader ends it earlier
        scope.cancel()

    async def _read(self, client: SocketClient) -> None:
        """Raises: OSError, Ended."""
        while True:
            if self.world.now() < self.paused_until_s:
                self.world.sometimes("reader paused")
                await trio.sleep_until(self.paused_until_s)
            opcode, payload = await client.receive()
            if opcode == PING:
                self._push(frame(payload, PONG))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                self.world.sometimes(f"closed {code} {payload[2:].decode()}".rstrip())
                if code in WRONG_CODES:
                    self.world.violate("closed wrongly", f"{self.name}: {code} {payload[2:]!r}")
                return
            elif opcode == TEXT:
                self._message(client.decoded(payload))

    def _message(self, message: Mapping[str, Any]) -> None:
        if "event" in message:
            self.inbox.event(message)
        elif message.get("id") == 0:
            if "error" in message and message["error"].get("retryable"):
                raise Ended(1013, "not let in now")
            if "error" in message:
                self._judge_refusal("auth", 401)
        else:
            self._answer(message)

    def _answer(self, message: Mapping[str, Any]) -> None:
        method, note = self._asked.pop(message["id"], ("", None))
        result, error = message.get("result"), message.get("error")
        self.world.trace(self.name, "answer", method, "" if isinstance(note, dict) else note, "ok" if error is None else error)
        if method == "messages.send":
            self.outgoing.answered(str(note), result, error)
        elif method == "subscribe" and result is not None:
            assert isinstance(note, dict)
            for channel, shown in result["channels"].items():
                self.inbox.placed(channel, shown, asked=note)
        elif method == "unsubscribe" and result is not None:
            assert isinstance(note, list)
            for channel in note:
                self.inbox.heard[channel].is_behind = False
        elif not method:
            self.world.violate("answer to nothing", f"{self.name}: {message}")
        elif error is not None and not self.is_excused(error) and not (method == "typing" and error["code"] == "FORBIDDEN"):
            self.world.violate("refused", f"{self.name} {method}: {error}")

    # -- by polls and plain requests

    async def _poll(self, host: str) -> None:
        """Poll for a while, and send by plain requests. Raises: OSError."""
        self.host = host
        until_s = self.world.now() + self.chance.uniform(2.0, 10.0)
        self.world.sometimes("polls")
        self._used = self.token
        while self.world.now() < until_s and not self.sim.is_ending:
            for key in self.outgoing.due():
                self.inbox.disconnected()  # while it sends it does not poll
                status, body = await self.request(host, "POST", "/v1/messages", self.outgoing.body(key), token=self._used)
                self.world.sometimes("sent by request")
                self.outgoing.answered(key, body.get("data") if status < 300 else None, error_of(status, body))
                if status == 401:
                    return self._judge_refusal("send", status)
            if not await self._poll_once(host):
                return None
        return None

    async def _poll_once(self, host: str) -> bool:
        """One long poll; False: go away. Raises: OSError."""
        began_s, channels = self.world.now(), self.inbox.channels()
        if not channels:
            await trio.sleep(0.5)
            return True
        after = self.inbox.after(channels)
        asked = {"channels": list(after), "after": after, "wait_s": self.chance.uniform(0.5, 4.0)}
        status, body = await self.request(host, "POST", "/v1/realtime/poll", asked, token=self._used)
        if status != 200:
            self._poll_refused(status, body, channels)
            return False
        for channel in after:
            heard = self.inbox.heard[channel]
            heard.is_behind = False
            heard.since_s = heard.since_s or began_s
        for event in body["data"]["events"]:
            self.inbox.event(event)
        return True

    def _poll_refused(self, status: int, body: Mapping[str, Any], channels: Sequence[str]) -> None:
        strangers = [channel for channel in channels if self.inbox.heard[channel].absences.may_refuse(self.world.now())]
        if status == 403 and strangers:
            for channel in strangers:
                self.inbox.forbidden(channel)
        elif status == 401:
            self._judge_refusal("poll", status)
        elif status not in AGAIN:
            self.world.violate("refused", f"{self.name} poll: {status} {body}")

    def _judge_refusal(self, what: str, status: int) -> None:
        """A good token must be taken."""
        self.world.trace(self.name, what, "refused", status)
        if status == 401 and self._used not in self.sim.ended and not self.has_wrong_clock(self.host):
            self.world.violate("good token refused", f"{self.name} {what}")
        elif status != 401 and status not in AGAIN:
            self.world.violate("refused", f"{self.name} {what}: {status}")

    async def request(
        self, host: str, method: str, path: str, body: object = None, *, token: str
    ) -> tuple[int, Mapping[str, Any]]:
        """One HTTP request on a connection of its own. Raises: OSError, also when no answer comes."""
        with trio.move_on_after(PATIENCE_S):
            transport = await self.cluster.net.connect(self.name, host)
            try:
                return await exchange(transport, method, path, body, token=token)
            finally:
                transport.abort()
        raise ConnectionAbortedError("no answer")
