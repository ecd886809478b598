"""What the load client is to open and send, and the dialects in which the servers are asked for it.

A `Topology` says who is in which room; a dialect turns it into a `Plan`: for each connection its path and setup frames, for each
room the text that publishes to it. `\\x01` and `\\x02` in that text are the holes for a running number and the content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TypeAlias

ID, CONTENT = "\x01", "\x02"


@dataclass(frozen=True, slots=True)
class Topology:
    """`readers`: per socket the rooms it is in; the first `mute` of them never read. `publishers`: sockets that only send.
    `senders`: per sender its room, for sockets that do both (they are in that room too)."""

    rooms: int
    readers: tuple[tuple[int, ...], ...]
    publishers: int = 0
    mute: int = 0
    senders: tuple[int, ...] = ()

    @property
    def sockets(self) -> int:
        return len(self.readers) + self.publishers + len(self.senders)


def one_room(readers: int, *, publishers: int = 100, mute: int = 0) -> Topology:
    """A channel of `readers`; the publishers stand outside, many, because commands of one socket run in order."""
    return Topology(1, ((0,),) * readers, publishers=publishers, mute=mute)


def small_rooms(rooms: int, members: int, rooms_per_socket: int, *, publishers: int = 100) -> Topology:
    """Every socket in `rooms_per_socket` rooms, every room with `members` sockets, so that few pairs meet twice: layer by layer,
    all sockets are dealt into rooms in another order."""
    sockets = rooms * members // rooms_per_socket
    assert rooms % rooms_per_socket == sockets % members == 0, "the rooms do not come out even"
    strides = [step for step in range(1, sockets) if gcd(step, sockets) == 1]
    places: list[list[int]] = [[] for _ in range(sockets)]
    for layer in range(rooms_per_socket):
        for position in range(sockets):
            socket = position * strides[layer * 7 % len(strides)] % sockets
            places[socket].append(layer * (sockets // members) + position // members)
    return Topology(rooms, tuple(map(tuple, places)), publishers=publishers)


@dataclass(frozen=True, slots=True)
class Connection:
    """`kind` as in load.c: r reads, m mute, p publishes, b both. `steps`: `>send`, `<wait for`, in order."""

    kind: str
    path: str
    steps: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    target: int | None = None

    def line(self) -> str:
        fields = ["conn", self.kind, self.path, *self.steps]
        if self.reads:
            fields.append("#" + ",".join(map(str, self.reads)))
        if self.target is not None:
            fields.append(f"@{self.target}")
        return "\t".join(fields)


@dataclass(frozen=True, slots=True)
class Plan:
    targets: tuple[str, ...]
    connections: tuple[Connection, ...]

    def write(self, path: Path) -> None:
        lines = [f"target\t{target}" for target in self.targets] + [connection.line() for connection in self.connections]
        path.write_text("\n".join(lines) + "\n")


Dialect: TypeAlias = Callable[[Topology], Plan]


def plan(
    topology: Topology,
    *,
    target: Callable[[int], str],
    join: Callable[[int, tuple[int, ...]], tuple[str, ...]],
    path: Callable[[int], str],
) -> Plan:
    """`join(n, rooms)`: the steps by which socket n enters; `path(n)`: where it connects; `target(room)`: publishes there."""
    connections = [
        Connection("m" if n < topology.mute else "r", path(n), join(n, rooms), rooms) for n, rooms in enumerate(topology.readers)
    ]
    n = len(connections)
    connections += [Connection("b", path(n + k), join(n + k, (room,)), (room,), room) for k, room in enumerate(topology.senders)]
    n = len(connections)
    connections += [Connection("p", path(n + k), join(n + k, ())) for k in range(topology.publishers)]
    return Plan(tuple(target(room) for room in range(topology.rooms)), tuple(connections))


def plain(topology: Topology) -> Plan:
    """peers/rooms.py"""

    def join(_: int, rooms: tuple[int, ...]) -> tuple[str, ...]:
        return (">s" + ",".join(map(str, rooms)), "<ok") if rooms else ()

    return plan(topology, target=lambda room: f"p{room}:{CONTENT}", join=join, path=lambda _: "/")


def centrifuge(topology: Topology) -> Plan:
    """Centrifugo's JSON protocol."""

    def join(_: int, rooms: tuple[int, ...]) -> tuple[str, ...]:
        steps = ['>{"id":1,"connect":{}}', '<"connect"']
        for number, room in enumerate(rooms, 2):
            steps += [f'>{{"id":{number},"subscribe":{{"channel":"r{room}"}}}}', f'<"id":{number},']
        return tuple(steps)

    def target(room: int) -> str:
        return f'{{"id":{ID},"publish":{{"channel":"r{room}","data":"{CONTENT}"}}}}'

    return plan(topology, target=target, join=join, path=lambda _: "/")


def socketio(topology: Topology) -> Plan:
    """Engine.IO 4 over WebSocket: `0` open, `40` connect, `42[…]` an event."""

    def join(_: int, rooms: tuple[int, ...]) -> tuple[str, ...]:
        enter = (f'>42["s","{",".join(map(str, rooms))}"]', '<"ok"') if rooms else ()
        return ("<0{", ">40", "<40", *enter)

    def target(room: int) -> str:
        return f'42["p","{room}","{CONTENT}"]'

    return plan(topology, target=target, join=join, path=lambda _: "/socket.io/?EIO=4&transport=websocket")


def chat(
    topology: Topology,
    *,
    token: Callable[[int], str],
    conversation: Callable[[int], str],
    after: Callable[[int], int] | None = None,
) -> Plan:
    """The native socket of interface.md §5; the chat peers speak it too. `token(n)`: of socket n; `conversation(room)`: its id;
    `after(room)`: the position from which it resumes, None: from now on."""

    def join(_: int, rooms: tuple[int, ...]) -> tuple[str, ...]:
        if not rooms:
            return ('<"hello"',)
        channels = [f'"conversation:{conversation(room)}"' for room in rooms]
        params = f'"channels":[{",".join(channels)}]'
        if after is not None:
            places = ",".join(f"{channel}:{after(room)}" for channel, room in zip(channels, rooms, strict=True))
            params += f',"after":{{{places}}}'
        return ('<"hello"', f'>{{"id":1,"method":"subscribe","params":{{{params}}}}}', '<"id":1,"result"')

    def target(room: int) -> str:
        params = f'{{"conversation_id":"{conversation(room)}","content":"{CONTENT}"}}'
        return f'{{"id":{ID},"method":"messages.send","params":{params}}}'

    return plan(topology, target=target, join=join, path=lambda n: f"/v1/ws?token={token(n)}")
