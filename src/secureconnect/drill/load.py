"""What goes on while something is broken: senders, readers, logins, looks at health, all at a steady rate, all written down.

The rates do not follow the server: who is slow to answer finds as many requests coming as before, up to a bound, above which they
are counted as skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from secureconnect.drill.cluster import Cluster
from secureconnect.drill.face import Answer, Face
from secureconnect.drill.listeners import Listener, Pinger, Poller
from secureconnect.drill.record import Ack, Entry, Health, LockTry, Record, Revoked, Subscriber, TokenUse

PASSWORD: Final = "a long enough password"
WRONG: Final = "not the password at all"
ROOMS: Final = 4
FAILURES_TO_A_LOCK: Final = 5
SEND_PER_S, HISTORY_PER_S, PROFILE_PER_S, PING_PER_S = 12.0, 15.0, 15.0, 90.0
"""Of each node. Together some two hundred a second that do not need Redis, so that a p99 of eight seconds has its samples."""
PINGERS: Final = 2
"""Of each node, which share its pings."""
HEALTH_S: Final = 0.25
LOGIN_S: Final = 1.0
"""Between two logins anywhere: each costs a tenth of a second of CPU."""
LOCK_S: Final = 1.0
UNDER_WAY_MAX: Final = 300
RETRY_S: Final = 0.5
SENT_S: Final = 45.0
"""After the end of the load until every message is acknowledged."""
SETTLED_S: Final = 20.0
"""After that until every reader has everything."""
PAGE: Final = 500


@dataclass(slots=True)
class Person:
    """One account with a session."""

    user: str
    email: str
    token: str


@dataclass(slots=True)
class Load:
    """All of one experiment. Made by `prepare`, which needs everything to be well."""

    cluster: Cluster
    record: Record
    faces: Sequence[Face]
    people: list[Person] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)
    victim: str = ""
    """E-mail of an account that was locked before the fault."""
    is_over: bool = False
    under_way: int = 0
    """Requests that have begun, or are about to."""
    listeners: list[Listener | Poller] = field(default_factory=list)
    _number: int = 0

    async def prepare(self, name: str) -> None:
        """Accounts and conversations, named after the experiment, and an account that is locked. Raises: OSError."""
        for number, face in enumerate([*self.faces, self.faces[0]]):
            self.people.append(await self._register(face, f"{name}-{number}"))
        me, others = self.people[0], [one.user for one in self.people[1:]]
        for number in range(ROOMS):
            wanted = {"type": "group", "title": f"room {number}", "participant_ids": others, "is_e2ee_enabled": False}
            made = _good(await self.faces[0].ask("", "POST", "/v1/conversations", token=me.token, body=wanted))
            self.rooms.append(str(made.data["conversation_id"]))
        self.victim = (await self._register(self.faces[0], f"{name}-victim")).email
        for _ in range(FAILURES_TO_A_LOCK):
            await self._login(self.faces[0], "", self.victim, WRONG)
        self.record.logs = dict.fromkeys(self.rooms)
        for face in self.faces:
            face.record = self.record

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. `is_over` ends what is sent and asked; readers go on."""
        async with trio.open_nursery() as nursery:
            for node, face in zip(self.cluster.nodes, self.faces, strict=True):
                person = self.people[self.faces.index(face)]
                for kind, is_prompt in (("prompt", True), ("slow", False)):
                    subscriber = Subscriber(f"{kind} at {node.name}", node.name, is_prompt)
                    self._begin_reader(nursery, Listener(subscriber, node.url, person.token, self.record, self.rooms))
                for _ in range(PINGERS):
                    pinger = Pinger(node.name, node.url, person.token, self.record, per_s=PING_PER_S / PINGERS)
                    nursery.start_soon(pinger.run)
                nursery.start_soon(self._look_at_health, face)
                nursery.start_soon(self._steadily, SEND_PER_S, self._send, face, nursery)
                nursery.start_soon(self._steadily, HISTORY_PER_S, self._read_history, face, nursery)
                nursery.start_soon(self._steadily, PROFILE_PER_S, self._read_profile, face, nursery)
            poller = Poller(Subscriber("poller", "", False), self.faces, self.people[-1].token, self.rooms)
            self._begin_reader(nursery, poller)
            nursery.start_soon(self._come_and_go)
            nursery.start_soon(self._try_the_lock)
            task_status.started()

    async def finish(self) -> None:
        """End the load, wait until all is acknowledged and read, and read the logs."""
        self.is_over = True
        with trio.move_on_after(SENT_S):
            while self.under_way:  # noqa: ASYNC110  # a second more or less does not matter here
                await trio.sleep(0.1)
        for room in self.rooms:
            self.record.logs[room] = await self._log(room)
        with trio.move_on_after(SETTLED_S):
            while not self._has_everybody_everything():  # noqa: ASYNC110
                await trio.sleep(0.1)
        for face in self.faces:
            face.record = None

    # -- what is done
    def _begin_reader(self, nursery: trio.Nursery, reader: Listener | Poller) -> None:
        self.listeners.append(reader)
        self.record.subscribers.append(reader.subscriber)
        nursery.start_soon(reader.run)

    async def _steadily(self, per_s: float, deed: Callable[[Face], Awaitable[None]], face: Face, nursery: trio.Nursery) -> None:
        own = 0

        async def once() -> None:
            nonlocal own
            try:
                await deed(face)
            finally:
                own -= 1
                self.under_way -= 1

        due_s = trio.current_time()
        while not self.is_over:
            due_s += 1 / per_s
            await trio.sleep_until(due_s)
            if self.is_over:
                return
            if own < UNDER_WAY_MAX:
                own += 1
                self.under_way += 1
                nursery.start_soon(once)
            else:
                self.record.skipped += 1

    async def _send(self, face: Face) -> None:
        """One message, tried under its key until it is acknowledged, by the next node when this one refuses."""
        self._number += 1
        key, room = f"m{self._number}", self.rooms[self._number % len(self.rooms)]
        turn = self.faces.index(face)
        body = {"conversation_id": room, "content": f"message {self._number}", "client_message_id": key}
        while True:
            at = self.faces[turn % len(self.faces)]
            answer = await at.ask("send", "POST", "/v1/messages", token=self.people[0].token, body=body)
            if answer.is_good:
                message, sequence = str(answer.data["message_id"]), int(answer.data["sequence"])
                self.record.acks.append(Ack(room, key, message, sequence, at.node, trio.current_time()))
                return
            turn += 1
            await trio.sleep(min(answer.retry_s or RETRY_S, RETRY_S))

    async def _read_history(self, face: Face) -> None:
        room = self.rooms[self._number % len(self.rooms)]
        await face.ask("history", "GET", f"/v1/messages?conversation_id={room}&limit=20", token=self.people[0].token)

    async def _read_profile(self, face: Face) -> None:
        await face.ask("profile", "GET", "/v1/auth/profile", token=self.people[0].token)

    async def _come_and_go(self) -> None:
        """Log in at one node and out again, refreshing every other time, and try the token everywhere afterwards."""
        turn = 0
        async with trio.open_nursery() as nursery:
            while not self.is_over:
                await trio.sleep(LOGIN_S)
                turn += 1
                nursery.start_soon(self._visit, self.faces[turn % len(self.faces)], turn % 2 == 0)

    async def _visit(self, face: Face, refreshes: bool) -> None:
        answer = await self._login(face, "login", self.people[-1].email, PASSWORD)
        if not answer.is_good:
            return
        token = str(answer.data["access_token"])
        if refreshes:
            body = {"refresh_token": answer.data["refresh_token"]}
            fresh = await face.ask("refresh", "POST", "/v1/auth/refresh", body=body)
            token = str(fresh.data["access_token"]) if fresh.is_good else token
        if not (await face.ask("logout", "POST", "/v1/auth/logout", token=token)).is_good:
            return
        self.record.revoked.append(Revoked(token, face.node, trio.current_time()))
        for _ in range(3):
            await trio.sleep(1.1)
            for other in self.faces:
                used_s = trio.current_time()
                tried = await other.ask("", "GET", "/v1/auth/profile", token=token)
                self.record.token_uses.append(TokenUse(token, other.node, used_s, tried.status))

    async def _try_the_lock(self) -> None:
        turn = 0
        while not self.is_over:
            await trio.sleep(LOCK_S)
            face, asked_s = self.faces[turn % len(self.faces)], trio.current_time()
            turn += 1
            answer = await self._login(face, "", self.victim, PASSWORD)
            self.record.lock_tries.append(LockTry(face.node, asked_s, answer.status))

    async def _look_at_health(self, face: Face) -> None:
        while True:
            answer = await face.ask("", "GET", "/healthz")
            if answer.data.get("dependencies"):
                self.record.health.append(_health(face.node, answer))
            await trio.sleep(HEALTH_S)

    async def _log(self, room: str) -> list[Entry] | None:
        found: list[Entry] = []
        while True:
            path = f"/v1/conversations/{room}/log?after={len(found)}&limit={PAGE}"
            answer = await self.faces[0].ask("", "GET", path, token=self.people[0].token)
            if not answer.is_good:
                return None
            for entry in answer.data["entries"]:
                is_message = entry["event"] == "message.created"
                found.append(Entry(entry["sequence"], entry["data"]["message_id"] if is_message else ""))
            if not answer.data["entries"] or len(found) >= answer.data["head"]:
                return found

    def _has_everybody_everything(self) -> bool:
        for listener in self.listeners:
            if isinstance(listener, Listener):
                listener.is_hurried = True
        tails = {f"conversation:{room}": len(log) for room, log in self.record.logs.items() if log is not None}
        return all(one.after[channel] >= tail for one in self.listeners for channel, tail in tails.items())

    async def _register(self, face: Face, name: str) -> Person:
        email = f"{name}@drill.test"
        wanted = {"email": email, "username": name.replace("-", "_"), "password": PASSWORD, "display_name": name}
        made = _good(await face.ask("", "POST", "/v1/auth/register", body=wanted))
        return Person(str(made.data["user"]["user_id"]), email, str(made.data["access_token"]))

    async def _login(self, face: Face, kind: str, email: str, password: str) -> Answer:
        return await face.ask(kind, "POST", "/v1/auth/login", body={"email": email, "password": password})


def _good(answer: Answer) -> Answer:
    if not answer.is_good:
        raise OSError(f"the load cannot be prepared: {answer.status} {answer.code}")
    return answer


def _health(node: str, answer: Answer) -> Health:
    shown, ledger = answer.data, answer.data["ledger"]
    states = {name: str(one["state"]) for name, one in shown["dependencies"].items()}
    breakers = {name: str(one["breaker"]) for name, one in shown["dependencies"].items()}
    queues = {name: (int(one["depth"]), int(one["bound"])) for name, one in shown["queues"].items()}
    accounted = ledger["delivered"] + sum(ledger["dropped"].values()) + ledger["pending"]
    tasks = 0
    with suppress(KeyError):
        tasks = int(shown["process"]["tasks"])
    return Health(node, trio.current_time(), states, breakers, queues, (int(ledger["published"]), int(accounted)), tasks)
