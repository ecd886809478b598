"""The messages that a client of the simulated world writes: repeated under their keys until acknowledged, or given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from secureconnect.ids import ConversationId, conversation_channel

if TYPE_CHECKING:
    from tests.simulation.people import Person

RETRY_S = 4.0


@dataclass
class Pending:
    """A message on its way. `until_s`: when its sender stops caring."""

    conversation: ConversationId
    content: str
    until_s: float
    asked_s: float = -99.0


class Outgoing:
    """Of one person, by key."""

    def __init__(self, person: Person) -> None:
        self._person, self._world = person, person.world
        self.pending: dict[str, Pending] = {}
        self.acked: dict[str, tuple[ConversationId, int]] = {}
        self._gives_up = 0.7 if person.sim.is_quiet else person.chance.choice((0.05, 0.15, 0.5))
        """The share of messages that are not repeated for ever."""

    async def produce(self, count: int, span_s: float) -> None:
        """Task: write so many messages; the person sends them by whatever connection it has."""
        person, chance = self._person, self._person.chance
        for number, at_s in enumerate(sorted(chance.uniform(0.3, span_s) for _ in range(count))):
            await trio.sleep_until(at_s)
            channels = [channel for channel, heard in person.inbox.heard.items() if not heard.is_over]
            if not channels:
                continue
            key = f"{person.name}-{number}"
            conversation = ConversationId(chance.choice(channels).removeprefix("conversation:"))
            padding = "x" * chance.choice((1, 1, 300, 1_500))
            until_s = at_s + chance.uniform(0.0, 1.0) if chance.random() < self._gives_up else 1e9
            self.pending[key] = Pending(conversation, f"{key} {padding}", until_s)
            person.ask(key)
            if chance.random() < 0.3:
                person.say("typing", conversation_id=conversation, is_typing=True)

    def due(self) -> Sequence[str]:
        """Keys to send now."""
        now = self._world.now()
        for key in [key for key, one in self.pending.items() if one.until_s <= now]:
            del self.pending[key]
            self._world.sometimes("gave up")
        return [key for key, one in self.pending.items() if now >= one.asked_s + RETRY_S]

    def body(self, key: str) -> dict[str, object]:
        """The request that sends it; it is asked for from now on."""
        one = self.pending[key]
        one.asked_s = self._world.now()
        return {"conversation_id": one.conversation, "content": one.content, "client_message_id": key}

    def answered(self, key: str, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> None:
        one = self.pending.get(key)
        if one is None:
            return  # given up
        absences = self._person.inbox.heard[conversation_channel(one.conversation)].absences
        if result is not None:
            self._world.trace(self._person.name, "acked", key, result["sequence"], result["duplicate"])
            if result["duplicate"]:
                self._world.sometimes("answered as duplicate")
            self.acked[key] = (one.conversation, result["sequence"])
            del self.pending[key]
        elif error is not None and error["code"] == "FORBIDDEN" and absences.may_refuse(self._world.now()):
            del self.pending[key]
        elif error is not None and not self._person.is_excused(error):
            self._world.violate("refused", f"{self._person.name} send {key}: {error}")
        else:
            one.asked_s = min(one.asked_s, self._world.now() - RETRY_S + 1.0)
