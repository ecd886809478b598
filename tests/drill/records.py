"""A record in which everything held, to be doctored: each change of it is a fault of the product that the oracle must see."""

from __future__ import annotations

from secureconnect.drill.record import (
    Ack,
    Entry,
    Fault,
    Health,
    LockTry,
    Op,
    Record,
    Revoked,
    Seen,
    Subscriber,
    TokenUse,
    Told,
)

NODES = ("node 1", "node 2")
ROOM = "room"
BEGAN_S, ENDED_S, OVER_S = 20.0, 30.0, 45.0


def good(dependency: str = "redis") -> Record:
    """20 s before, 10 s of outage, 15 s after: a request every 5 ms, a message every 100 ms, a look at health every 500 ms."""
    record = Record(Fault("frozen", dependency, BEGAN_S, ENDED_S), NODES, frozenset({"history"}))
    record.ops = [Op("history", NODES[n % 2], n * 0.005, 0.004, 200) for n in range(9000)]
    record.ops += [Op("login", NODES[n % 2], 21.0 + n, 0.3, 503, "BACKEND_DOWN", has_retry=True) for n in range(5)]
    record.ops += [Op("poll", NODES[n % 2], n * 5.0, 5.1, 200, wait_s=5.0) for n in range(8)]
    record.subscribers = [Subscriber("one", NODES[0]), Subscriber("two", NODES[1]), Subscriber("slow", NODES[1], is_prompt=False)]
    times = [n * 0.1 for n in range(450)]
    record.acks = [Ack(ROOM, f"k{n}", f"m{n}", n + 1, NODES[n % 2], at) for n, at in enumerate(times)]
    record.logs = {ROOM: [Entry(n + 1, f"m{n}") for n in range(len(times))]}
    for one in record.subscribers:
        late = 0.05 if one.is_prompt else 7.0
        record.seen += [Seen(one.name, ROOM, n + 1, at + late) for n, at in enumerate(times)]
    for node in NODES:
        record.health += [look(node, n * 0.5, dependency) for n in range(90)]
        record.told += [Told(node, BEGAN_S + 1.5, ("presence",)), Told(node, ENDED_S + 2, ())]
    record.revoked = [Revoked("s1", NODES[0], 22.0)]
    record.token_uses = [TokenUse("s1", NODES[n % 2], 24.5 + n, 401) for n in range(6)]
    record.lock_tries = [LockTry(NODES[n % 2], 20.0 + n, 401) for n in range(6)]
    return record


def look(node: str, at_s: float, dependency: str) -> Health:
    is_down = BEGAN_S + 3 <= at_s < ENDED_S + 1
    other = "sql" if dependency == "redis" else "redis"
    return Health(
        node,
        at_s,
        {dependency: "down" if is_down else "up", other: "up"},
        {dependency: "open" if is_down else "closed"},
        {"outbox": (3, 100)},
        (500, 500),
        tasks=40,
    )
