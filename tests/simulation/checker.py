"""What must hold in every world, looked at from outside.

*Late* is measured from the latest of: a node learnt that the entry is stored; the subscriber was told that it is subscribed; the
end of its own pause or of the hole in front of it; the end of a fault of the log's store (while that lasts nothing is late).
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

import secureconnect.hub.channel
import secureconnect.hub.feed
import secureconnect.server.websocket_backlog
from secureconnect.errors import NotAuthenticated
from secureconnect.ids import ConversationId, conversation_channel
from secureconnect.node import Node
from secureconnect.testing.determinism import task_count, task_tree

if TYPE_CHECKING:
    from tests.simulation.inbox import Heard
    from tests.simulation.people import Person
    from tests.simulation.simulator import Simulator

LOOK_S = 0.47
LATE_S = 10.0
"""design.md §4: an acknowledged message reaches every connected subscriber, whatever one thing is lost."""
REVOKED_S = 2.0
CLOSED_S = 4.75
"""A busy socket whose session has ended: 2 s for the answer under way, 2 s for the close handshake, two ticks."""
FORGET_S = 10.0
"""From the answer to a removal until nothing new is shown to who was removed, whatever one thing is broken (design.md §4)."""
FORGET_CALM_S = 2.0
"""And while nothing is broken."""
CONVERSATION = "conversation:"
NAMED_S, CLEARED_S = 5.0, 10.0
"""Until health names a fault, and no longer names one that has ended."""
PLAIN_FAULTS = frozenset({"hang", "fail", "zombie", "full"})


class Checker:
    """Violations go to the world."""

    def __init__(self, sim: Simulator) -> None:
        self._sim, self._world, self._cluster = sim, sim.world, sim.cluster
        self.lateness: list[float] = []
        self._acknowledged_ends: dict[str, None] = {}
        """Tokens of sessions whose end was acknowledged."""
        self._refused: dict[tuple[str, int, str], None] = {}
        """Node, its start, token: once refused for good."""
        self._tallies: dict[str, int] = {}
        self._generation = 0

    # -- on the spot

    def arrived(self, person: Person, channel: str, heard: Heard, sequence: int) -> None:
        """A client got this entry for the first time: was it in time?"""
        cluster, now = self._cluster, self._world.now()
        told_s = self._told_s(channel, sequence)
        if told_s is None:
            return
        late_s = 0.0
        if cluster.log.mode == "ok" and now >= person.cut_until_s and heard.since_s is not None:
            late_s = max(0.0, now - max(told_s, heard.since_s, person.hindered_until_s, cluster.log.bad_until_s))
        self.lateness.append(late_s)
        if late_s > LATE_S:
            self._world.violate("late", f"{person.name} got {sequence} of {channel} {late_s:.1f} s late")

    def shown(self, person: Person, channel: str, heard: Heard, sequence: int) -> None:
        """A client got this entry: might it?"""
        told_s, now = self._told_s(channel, sequence), self._world.now()
        if told_s is None:
            return
        for absence in heard.absences.hidden_during(now):
            if not absence.removed_s < told_s < absence.adding_s:
                continue
            self._world.sometimes("shown just after the removal")
            is_calm = self._cluster.is_calm_since(absence.removed_s - FORGET_S)
            if told_s > absence.removed_s + (FORGET_CALM_S if is_calm else FORGET_S):
                self._world.violate("shown to a removed member", f"{person.name} {sequence} of {channel}")

    def before_removal(self, person: Person, channel: str, heard: Heard) -> None:
        """Somebody is about to remove this member: what is ten seconds old must have come."""
        cluster, now = self._cluster, self._world.now()
        if cluster.log.mode != "ok" or heard.since_s is None:
            return
        base = max(heard.since_s, person.hindered_until_s, cluster.log.bad_until_s)
        for sequence, _, _ in cluster.entries(ConversationId(channel.removeprefix(CONVERSATION)))[len(heard.ids) :]:
            told_s = self._told_s(channel, sequence)
            if told_s is not None and max(told_s, base) + LATE_S < now:
                self._world.violate("lost before the removal", f"{person.name} has {len(heard.ids)} of {channel}, not {sequence}")

    def _told_s(self, channel: str, sequence: int) -> float | None:
        return self._cluster.told.get((channel.removeprefix(CONVERSATION), sequence))

    async def look(self) -> None:
        """Task: bounds, books, bugs, on every node."""
        while True:
            await trio.sleep(LOOK_S)
            for name, node in self._cluster.nodes.items():
                self._look_at(name, node)
                self._look_at_health(name, node)
                self._look_at_ended(name, node)
            self._look_at_tallies()

    def _look_at(self, name: str, node: Node) -> None:
        if node.unexpected():
            self._world.violate("unexpected exception", f"{name}: {node.unexpected()} {self._sim.exceptions}")
        if not node.hub.ledger.balances:
            ledger = node.hub.ledger
            self._world.violate("ledger", f"{name}: {ledger.published} {ledger.delivered} {ledger.pending} {ledger.dropped}")
        hub, settings = node.hub.statistics(), self._cluster.settings
        bounds = {
            "channel queue": (hub.queued_max, hub.queue_max),
            "queues' bytes": (hub.queued_bytes, hub.queue_bytes_max),
            "bus queue": (hub.bus_waiting, node.hub.limits.bus_queue_max),
            "held": (hub.held, hub.channels * secureconnect.hub.feed.HELD_MAX),
            "sockets": (node.gateway.sockets, settings.sockets_max),
            "log entries": (node.log.pipeline.statistics().entries, node.log.pipeline._lanes.limits.lane_max * 16),
        }
        for socket in list(node.gateway._sockets):
            outbox = socket.connection._outbox
            if outbox is not None:
                self._world.sometimes("outbox in use")
                # a line of answers takes a page of a replay; what the pump could not write stands before it, one turn a channel
                turn = secureconnect.hub.channel.TURN_ITEMS * (self._sim.size.conversations_max + 1)
                answers = round(settings.outbox_messages_max * secureconnect.server.websocket_backlog.EVENTS_SHARE)
                line = max(settings.outbox_messages_max, answers + secureconnect.hub.feed.PAGE)
                bounds["outbox"] = (outbox.messages, line + turn)
                bounds["outbox bytes"] = (outbox.bytes, settings.outbox_bytes_max + secureconnect.hub.channel.TURN_BYTES)
        for what, (depth, bound) in bounds.items():
            if depth > bound:
                self._world.violate("bound", f"{name} {what}: {depth} > {bound}")

    def _look_at_health(self, name: str, node: Node) -> None:
        """A fault is named, and its end (interface.md §7). A slow or half-applied call may pass for a good one."""
        cluster, now = self._cluster, self._world.now()
        up_s = now - cluster.hosts[name].up_since_s
        for dependency, condition in (("sql", cluster.sql), ("redis", cluster.redis)):
            state, lasts_s = node.dependencies[dependency].state, min(up_s, now - condition.since_s)
            if condition.mode in PLAIN_FAULTS and lasts_s > NAMED_S:
                self._world.sometimes(f"{dependency} named down")
                if state not in ("down", "slow"):  # it was slow before, and is said to be in trouble
                    self._world.violate("health hides a fault", f"{name}: {dependency} is {condition.mode}, shown as {state}")
            elif condition.mode == "ok" and lasts_s > CLEARED_S and state != "up":
                self._world.violate("health invents a fault", f"{name}: {dependency} is well, shown as {state}")

    def _look_at_ended(self, name: str, node: Node) -> None:
        """What was refused for good is never taken again: sets of ended sessions only grow."""
        epoch = self._cluster.hosts[name].epoch
        for token in self._acknowledged_ends:
            try:
                node.auth.verify(token)
            except NotAuthenticated as error:
                if error.word == "TOKEN_REVOKED":
                    self._refused[name, epoch, token] = None
            else:
                if (name, epoch, token) in self._refused:
                    self._world.violate("revocation undone", f"a token that {name} had refused works there again")

    def _look_at_tallies(self) -> None:
        """Counts of wrong passwords fall only when everything was forgotten, or became a lock."""
        memory = self._cluster.memory
        if memory.generation != self._generation:
            self._generation, self._tallies = memory.generation, {}
        for key, before in self._tallies.items():
            tally = memory.lockouts._tallies.get(key)
            if tally is None or (tally.failures < before and not tally.locked_until_us):
                self._world.violate("count fell", f"{key}: {before}, then {tally}")
        self._tallies = {key: tally.failures for key, tally in memory.lockouts._tallies.items() if not tally.locked_until_us}

    async def revoked(self, token: str, person: Person) -> None:
        """Task: a session's end was acknowledged just now."""
        self._acknowledged_ends[token] = None
        began_s, name = self._world.now(), person.name
        session = self._cluster.session_of(token)
        await trio.sleep(REVOKED_S)
        if self._cluster.sql.was_bad_since(began_s - 2 * LATE_S):
            self._world.sometimes("revoked while SQL was away")
            return
        self._world.sometimes("revoked")
        for host, node in self._cluster.nodes.items():
            with suppress(NotAuthenticated):
                node.auth.verify(token)
                self._world.violate("revoked token works", f"{name} on {host}")
            for poll in node.polls._users.get(person.user, ()):
                if poll.me.session == session and not poll.is_revoked:
                    self._world.violate("poll of an ended session", f"{name} on {host}")
        await trio.sleep(CLOSED_S)
        for host, node in self._cluster.nodes.items():
            for socket in list(node.gateway._sockets):
                if socket.identity is not None and socket.identity.session == session:
                    self._world.violate("socket of an ended session", f"{name} on {host}")

    # -- at the end

    def stored(self) -> None:
        """Everything acknowledged is in the log once, at its number; everybody has everything."""
        for conversation in self._sim.rooms:
            log = self._cluster.entries(conversation)
            if [sequence for sequence, _, _ in log] != list(range(1, len(log) + 1)):
                self._world.violate("hole", f"{conversation}")
            bodies = [msgspec.json.decode(body) for _, kind, body in log if kind == "message.created"]
            for content, count in Counter(body["content"].split(" ")[0] for body in bodies).items():
                if count > 1:
                    self._world.violate("stored twice", f"{content} in {conversation}")
            self._acknowledged(conversation)
            for person in self._sim.people:
                self._got(person, conversation)
        if self._sim.exceptions:
            self._world.violate("unexpected exception", str(self._sim.exceptions))

    def _acknowledged(self, conversation: ConversationId) -> None:
        log = {sequence: body for sequence, _, body in self._cluster.entries(conversation)}
        for person in self._sim.people:
            for key, (where, sequence) in person.outgoing.acked.items():
                if where == conversation and f'"{key} ' not in log.get(sequence, ""):
                    self._world.violate("acked, not stored", f"{key} at {sequence} of {conversation}")

    def _got(self, person: Person, conversation: ConversationId) -> None:
        channel = conversation_channel(conversation)
        heard = person.inbox.heard.get(channel)
        if heard is None:
            return
        log = self._cluster.entries(conversation)
        if not heard.absences.is_away and len(heard.ids) != len(log):
            self._world.violate("lost", f"{person.name} has {len(heard.ids)} of {len(log)} of {channel}")
        first = max(self._cluster.joins(conversation, person.user), default=1)
        for (sequence, _, body), known in zip(log, heard.ids, strict=False):
            if known is None and sequence >= first:
                self._world.violate("hidden", f"{person.name} {channel} {sequence}, a member from {first} on")
            if known and known not in body:
                self._world.violate("another entry", f"{person.name} {channel} {sequence}: {known}")

    async def left_behind(self) -> None:
        """Everybody has gone: nothing of them is left."""
        least = dict.fromkeys(self._cluster.nodes, 10**9)
        for _ in range(3):
            await trio.sleep(0.37)
            for name in self._cluster.nodes:
                task = self._cluster.hosts[name].task
                assert task is not None
                least[name] = min(least[name], task_count(task))
        for name, node in self._cluster.nodes.items():
            hub, host = node.hub.statistics(), self._cluster.hosts[name]
            left = {
                "sockets": node.gateway.sockets,
                "connections": node.front.connections,
                "open": self._cluster.net.open_at(name),
                "polls": node.polls.waiting,
                "peers": hub.peers,
                "places": hub.places,
                "behind": hub.behind,
                "queued": hub.queued,
                "pending": node.hub.ledger.pending,
                "appends": node.log.pipeline.statistics().entries,
                "tasks": max(0, least[name] - host.tasks_at_start),
            }
            if any(left.values()):
                self._world.task_tree = task_tree()
                self._world.violate("left behind", f"{name} { ({k: v for k, v in left.items() if v}) }")
