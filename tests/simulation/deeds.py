"""What people of the simulated world do beside writing: admins remove members and add them again, sessions are ended."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from tests.simulation.absences import Absence
from tests.simulation.requests import AGAIN, error_of

from secureconnect.ids import ConversationId, conversation_channel

if TYPE_CHECKING:
    from tests.simulation.people import Person
    from tests.simulation.simulator import Simulator

LANDED_S = 9.0
"""A write whose outcome was unknown may land so much later: what contradicts it waits."""


GUESSERS, GUESSES = 2, 14
GUESS_S = (0.2, 0.7, 1.5)
"""Mean time between two guesses."""
LOCKED_S = 3.0
"""From the first refusal for a lock until every node refuses, while SQL or Redis is up: 2 s, and a call."""


@dataclass(frozen=True, slots=True)
class Done:
    """An answer. `is_sure`: no try before it may still be done later. `at_s`: when it came."""

    status: int
    at_s: float
    is_sure: bool


class Deeds:
    """Plans and does them; what was acknowledged goes onto the checker's books."""

    def __init__(self, sim: Simulator) -> None:
        self._sim, self._world, self._cluster = sim, sim.world, sim.cluster
        self._chance = sim.world.rng("deeds")
        self.under_way = 0
        """Deeds that are not done."""

    def begin(self) -> None:
        """Start everything that this seed has."""
        share = 0.1 if self._sim.is_quiet else 0.6
        for conversation, members in self._sim.rooms.items():
            if len(members) > 2 and self._chance.random() < share:
                at_s = self._chance.uniform(0.5, self._sim.size.span_s)
                self._world.begin(self._counted, self._come_and_go, at_s, members[0], members[-1], conversation)
        for person in self._sim.people:
            if self._chance.random() < 0.2:
                self._world.begin(self._counted, self._end_session, self._chance.uniform(0.5, self._sim.size.span_s), person)
        if not any(fault.kind == "clock" for fault in self._sim.faults):  # a wrong clock ends a lock, and rightly so
            for guesser in self._sim.people[:GUESSERS]:
                self._world.begin(self._counted, self._guess, guesser)

    async def _counted(self, deed: Callable[..., Awaitable[None]], *args: object) -> None:
        self.under_way += 1
        try:
            await deed(*args)
        finally:
            self.under_way -= 1

    async def _come_and_go(self, at_s: float, admin: Person, member: Person, conversation: ConversationId) -> None:
        await trio.sleep_until(at_s)
        for _ in range(self._chance.choice((1, 1, 2))):
            absence = await self._remove(admin, member, conversation)
            if absence is None or self._chance.random() < 0.25:
                return
            await trio.sleep(self._chance.choice((0.05, 1.0, 4.0, 12.0)))
            if not await self._add(admin, member, conversation, absence):
                return
            await trio.sleep(self._chance.uniform(0.05, 4.0))

    async def _remove(self, admin: Person, member: Person, conversation: ConversationId) -> Absence | None:
        channel = conversation_channel(conversation)
        heard = member.inbox.heard[channel]
        self._sim.checker.before_removal(member, channel, heard)
        absence = Absence(self._world.now())
        heard.absences.all.append(absence)
        done = await self._until_done(admin, "DELETE", f"/v1/conversations/{conversation}/participants/{member.user}", {200, 404})
        if done is None:
            return None
        absence.removed_s = done.at_s
        self._world.sometimes("removed a member")
        await self._land(done)
        return absence

    async def _add(self, admin: Person, member: Person, conversation: ConversationId, absence: Absence) -> bool:
        absence.adding_s = self._world.now()
        path = f"/v1/conversations/{conversation}/participants"
        done = await self._until_done(admin, "POST", path, {200}, {"user_ids": [member.user]})
        if done is None:
            return False
        absence.added_s = done.at_s
        self._world.sometimes("added a member again")
        member.inbox.heard[conversation_channel(conversation)].is_over = False
        await self._land(done)
        return True

    async def _land(self, done: Done) -> None:
        if not done.is_sure:
            await trio.sleep_until(done.at_s + LANDED_S)

    async def _end_session(self, at_s: float, person: Person) -> None:
        """End the session that the person uses, by itself or from another one; afterwards the person uses a new one."""
        await trio.sleep_until(at_s)
        old, new = person.token, await self._cluster.login(person.user)
        self._sim.ended[old] = None
        if self._chance.random() < 0.5:
            done = await self._until_done(person, "POST", "/v1/auth/logout", {200, 401}, token=old)
        else:
            path = f"/v1/auth/sessions/{self._cluster.session_of(old)}"
            done = await self._until_done(person, "DELETE", path, {200, 404}, token=new)
        person.token = new
        if done is not None:
            await self._sim.checker.revoked(old, person)

    async def _guess(self, person: Person) -> None:
        """Try passwords of an account until it is locked, and go on trying: nothing may unlock it (failure-policy.md §2)."""
        chance, pause_s = self._world.rng(f"guesses of {person.name}"), self._chance.choice(GUESS_S)
        known: dict[tuple[str, int], None] = {}
        locked_s = math.inf
        for _ in range(GUESSES):
            await trio.sleep(chance.expovariate(1 / pause_s))
            name = chance.choice(list(self._cluster.hosts))
            asked_s, epoch = self._world.now(), self._cluster.hosts[name].epoch
            guess = {"email": f"victim of {person.name}@sim.test", "password": "not it"}
            try:
                status, answer = await person.request(name, "POST", "/v1/auth/login", guess, token=person.token)
            except OSError:
                continue
            code = (error_of(status, answer) or {}).get("code")
            self._world.trace(person.name, "guesses at", name, status, code)
            if code == "ACCOUNT_LOCKED":
                self._world.sometimes("account locked")
                known[name, epoch] = None
                locked_s = min(locked_s, self._world.now())
            elif code == "INVALID_CREDENTIALS" and asked_s > locked_s:
                is_told = not all(one.was_bad_since(locked_s - LOCKED_S) for one in (self._cluster.sql, self._cluster.redis))
                if (name, epoch) in known or (is_told and asked_s > locked_s + LOCKED_S):
                    self._world.violate("lock reset", f"{person.name} at {name}, {asked_s - locked_s:.1f} s after the lock")
            elif status not in AGAIN and code not in ("ACCOUNT_LOCKED", "INVALID_CREDENTIALS"):
                self._world.violate("refused", f"{person.name} login: {status} {answer}")

    async def _until_done(
        self, person: Person, method: str, path: str, good: Container[int], body: object = None, *, token: str | None = None
    ) -> Done | None:
        """Ask until the answer is a good one. None: the world ended before."""
        is_sure = True
        while not self._sim.is_ending:
            host, used = person.chance.choice(list(self._cluster.hosts)), token or person.token
            try:
                status, answer = await person.request(host, method, path, body, token=used)
            except OSError:
                status, answer = 0, {}
            self._world.trace(person.name, method, path[:30], status)
            has_wrong_clock = status == 401 and person.has_wrong_clock(host)
            if status in good and not has_wrong_clock:
                return Done(status, self._world.now(), is_sure)
            if status != 401 or not (has_wrong_clock or used in self._sim.ended):
                is_sure = False
                if status and status < 500:
                    self._world.violate("refused", f"{person.name} {method} {path}: {status} {answer}")
            await trio.sleep(person.chance.uniform(0.1, 0.5))
        return None
