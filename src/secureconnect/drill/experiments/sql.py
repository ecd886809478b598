"""The database: its pool busy behind a lock, its connections used up, frozen, restarted, in conflict with itself."""

from __future__ import annotations

import socket
from typing import Final

import trio

from secureconnect.drill.cluster import SQL_CONNECTIONS_MAX, Cluster
from secureconnect.drill.experiments.fault import Breakage

INDEPENDENT: Final = frozenset({"ping"})
ANSWER_S: Final = 2.0
FILL_S: Final = 0.2
"""Between two rounds that take what connections are free."""
NAME: Final = b"drill"
END_OTHERS: Final = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test' AND application_name <> '" + NAME + b"'"
)
HELD_MAX: Final = 3 * SQL_CONNECTIONS_MAX
STORM: Final = """
    CREATE FUNCTION drill_conflict() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.3 THEN RAISE EXCEPTION 'could not serialize' USING ERRCODE = '40001'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER drill_conflict BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION drill_conflict()
"""
CALM: Final = "DROP TRIGGER drill_conflict ON entries; DROP FUNCTION drill_conflict()"


async def pool_busy(cluster: Cluster, for_s: float) -> None:
    """Whoever appends waits for a lock, until all connections do."""
    held = f"BEGIN; LOCK TABLE heads IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({for_s}); COMMIT"
    await trio.to_thread.run_sync(cluster.sql.sql, held)


async def connections_used_up(cluster: Cluster, for_s: float) -> None:
    """Somebody else's connections take all that are free; ours are ended, and find no way back."""
    held: list[socket.socket] = []
    try:
        with trio.move_on_after(for_s):
            while True:
                await trio.to_thread.run_sync(_fill, cluster.sql.port, held)
                await trio.sleep(FILL_S)
    finally:
        for stream in held:
            stream.close()


async def frozen(cluster: Cluster, for_s: float) -> None:
    cluster.sql.freeze()
    await trio.sleep(for_s)
    cluster.sql.thaw()


async def restarted(cluster: Cluster, for_s: float) -> None:
    await trio.to_thread.run_sync(cluster.sql.stop)
    await trio.sleep(for_s)
    await trio.to_thread.run_sync(cluster.sql.start)


async def conflicts(cluster: Cluster, for_s: float) -> None:
    """Three of ten appends lose their serialization."""
    await trio.to_thread.run_sync(cluster.sql.sql, STORM)
    await trio.sleep(for_s)
    await trio.to_thread.run_sync(cluster.sql.sql, CALM)


def _fill(port: int, held: list[socket.socket]) -> None:
    """Let the first one end all connections but its own kind's, and open new ones until one is refused."""
    if held:
        held[0].sendall(b"Q" + (len(END_OTHERS) + 5).to_bytes(4, "big") + END_OTHERS + b"\0")
    for _ in range(HELD_MAX):
        try:
            stream = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
            stream.sendall(_startup())
            is_in = stream.recv(1) == b"R"
        except OSError:
            return
        if not is_in:
            stream.close()
            return
        held.append(stream)


def _startup() -> bytes:
    """The first message of the protocol, version 3.0, for a server that trusts us."""
    words = b"user\0postgres\0database\0test\0application_name\0" + NAME + b"\0\0"
    return (8 + len(words)).to_bytes(4, "big") + (196_608).to_bytes(4, "big") + words


ALL: Final = (
    Breakage("pool busy", "sql", pool_busy, INDEPENDENT, is_outage=False),
    Breakage("connections used up", "sql", connections_used_up, INDEPENDENT),
    Breakage("frozen", "sql", frozen, INDEPENDENT),
    Breakage("restarted", "sql", restarted, INDEPENDENT),
    Breakage("conflicts", "sql", conflicts, INDEPENDENT, is_outage=False),
)
SHORT: Final = tuple(one for one in ALL if one.name in ("frozen", "restarted"))
