"""Two of our nodes on one Redis and one PostgreSQL, with the same users and conversations on both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from bench.harness.backing import Redis, postgres_server, redis_server
from bench.harness.plan import Plan, Topology, chat
from bench.harness.processes import LOAD_CORE, SERVER_CORE
from bench.harness.report import Report
from bench.ours import Ours, OurServer

SECRET: Final = "bench-secret-of-at-least-32-bytes!!"
SECOND_CORE: Final = next((core for core in sorted(os.sched_getaffinity(0)) if core not in (SERVER_CORE, LOAD_CORE)), SERVER_CORE)


@dataclass(frozen=True, slots=True)
class Pair:
    """`first` is where is sent."""

    redis: Redis
    first: OurServer
    second: OurServer

    def plan(self, topology: Topology, *, readers_at: OurServer, first_room: int = 0) -> Plan:
        """Who publishes does so at `first`. `first_room`: the topology's rooms are the conversations from this one on."""
        self.first.open_conversations(first_room + topology.rooms)
        made = chat(topology, token=self.first.token, conversation=lambda room: self.first.conversation(first_room + room))
        ports = {"r": readers_at.process.port}
        connections = (replace(c, path=f"{ports.get(c.kind, self.first.process.port)}{c.path}") for c in made.connections)
        return Plan(made.targets, tuple(connections))


@contextmanager
def pair(report: Report, *, sockets: int) -> Iterator[Pair]:
    """Raises: Missing."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        postgres = stack.enter_context(postgres_server())
        shared = {"SQL_URL": postgres.url, "REDIS_URL": redis.url, "SECRET": SECRET}
        settings = tuple((f"SECURECONNECT_{name}", value) for name, value in shared.items())
        first = Ours(settings).start(sockets=sockets)
        stack.callback(first.stop)
        second = Ours(settings, core=SECOND_CORE).launch(sockets=sockets)
        stack.callback(second.stop)
        second.users, second.conversations = first.users, first.conversations
        report.version("secureconnect", Ours().version())
        if SECOND_CORE == SERVER_CORE:
            report.note("two cores only: both nodes share one, so what the second node does is taken from the first")
        yield Pair(redis, first, second)
