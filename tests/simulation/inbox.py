"""What a client of the simulated world has got, judged on the spot: dense and ascending numbers, nothing twice, nothing late,
nothing that it may not see, and no refusal without a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.absences import Absences

from secureconnect.ids import ConversationId, conversation_channel

if TYPE_CHECKING:
    from tests.simulation.people import Person


@dataclass
class Heard:
    """What a client got of one conversation. `ids`: one per entry, in the order of their numbers; None for what is hidden."""

    absences: Absences
    ids: list[str | None] = field(default_factory=list)
    since_s: float | None = None
    """Answer to the present subscription; None: not subscribed now."""
    is_over: bool = False
    """Knows that it is no member."""
    is_behind: bool = False
    """The server began further on: leave, and subscribe again with one's own position."""


class Inbox:
    """Of one person, by channel."""

    def __init__(self, person: Person) -> None:
        self._person, self._world = person, person.world
        self.heard: dict[str, Heard] = {}

    def joins(self, conversation: ConversationId, *, sees_all: bool) -> None:
        self.heard[conversation_channel(conversation)] = Heard(Absences(sees_all))

    def channels(self) -> Sequence[str]:
        """What to ask for; who is stubborn asks sometimes for what it may not see."""
        stubborn = self._person.is_stubborn
        return [
            channel
            for channel, heard in self.heard.items()
            if not heard.is_over or (stubborn and self._person.chance.random() < 0.3)
        ]

    def after(self, channels: Sequence[str]) -> dict[str, int]:
        return {channel: len(self.heard[channel].ids) for channel in channels}

    def missing(self) -> Sequence[str]:
        return [channel for channel, heard in self.heard.items() if not heard.is_over and heard.since_s is None]

    def disconnected(self) -> None:
        for heard in self.heard.values():
            heard.since_s, heard.is_behind = None, False

    # -- places

    def placed(self, channel: str, shown: Mapping[str, Any], *, asked: Mapping[str, int]) -> None:
        """One channel's part of an answer to `subscribe`, or of the event `subscribed` (`asked` is empty)."""
        heard = self.heard.get(channel)
        if heard is None:
            return
        if "error" in shown:
            self._refused(channel, heard, shown["error"])
            return
        begins = shown["sequence"] - shown["missed"] if shown["recovered"] else shown["sequence"]
        if not shown["recovered"] or shown.get("reset"):
            self._hide(channel, heard, shown)
        elif channel not in asked and begins > len(heard.ids):
            self._world.sometimes("followed from the end")
            heard.since_s, heard.is_behind = None, True
        elif not heard.is_behind:
            self._world.sometimes("recovered" if shown["missed"] else "nothing missed")
            heard.since_s, heard.is_over = self._world.now(), False

    def _hide(self, channel: str, heard: Heard, shown: Mapping[str, Any]) -> None:
        """Not everything can be had: right only for who may not see what was said before the own return."""
        person, conversation = self._person, ConversationId(channel.removeprefix("conversation:"))
        have = len(heard.ids)
        joins = [number for number in person.cluster.joins(conversation, person.user) if number > have + 1]
        is_right = not heard.absences.sees_all and bool(joins) and shown.get("first", joins[0]) in joins
        if not is_right:
            self._world.violate("not recovered", f"{person.name} {channel} after {have}: {shown}")
            return
        self._world.sometimes("sees from the return on")
        heard.ids += [None] * (shown.get("first", joins[0]) - 1 - have)
        heard.since_s, heard.is_behind = None, True

    def _refused(self, channel: str, heard: Heard, error: Mapping[str, Any]) -> None:
        if error["code"] == "FORBIDDEN" and heard.absences.may_refuse(self._world.now()):
            self.forbidden(channel)
        elif not self._person.is_excused(error):
            self._world.violate("refused", f"{self._person.name} {channel}: {error}")

    def forbidden(self, channel: str) -> None:
        """A server says that this is no member. It may speak of a time before the return."""
        heard = self.heard[channel]
        heard.since_s, heard.is_behind = None, False
        heard.is_over = heard.absences.is_away

    # -- events

    def event(self, event: Mapping[str, Any]) -> None:
        channel = event.get("channel", "")
        heard = self.heard.get(channel)
        if event["event"] == "unsubscribed":
            self._unsubscribed(event["data"]["channel"])
        elif event["event"] == "subscribed":
            self.placed(event["data"]["channel"], event["data"], asked={})
        elif heard is None:
            return
        elif event["event"] == "gap":
            self._hide(channel, heard, event)
        elif "sequence" not in event:
            self._world.sometimes("ephemeral")
        else:
            self._entry(channel, heard, event["sequence"], event["data"])

    def _unsubscribed(self, channel: str) -> None:
        self._world.sometimes("unsubscribed")
        if not self.heard[channel].absences.may_refuse(self._world.now()):
            self._world.violate("unsubscribed wrongly", f"{self._person.name} {channel}")
        self.forbidden(channel)

    def _entry(self, channel: str, heard: Heard, sequence: int, data: Mapping[str, Any]) -> None:
        person = self._person
        self._world.trace(person.name, "got", channel[-4:], sequence)
        person.sim.checker.shown(person, channel, heard, sequence)
        if heard.is_behind:
            return  # it comes again
        if sequence != len(heard.ids) + 1:
            self._world.violate("order", f"{person.name} got {sequence} of {channel} after {len(heard.ids)}")
            return
        heard.ids.append(str(data.get("message_id", "")))
        person.sim.checker.arrived(person, channel, heard, sequence)
