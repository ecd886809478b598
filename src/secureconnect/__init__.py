"""SecureConnect: a real-time communication server that keeps working when the things it needs fail.

The map of the house. Arrows point inward: a room knows only what stands below it, and tests/test_architecture.py holds that.

    __main__, commands/  the command line
    app                  the composition root: settings -> stores -> features -> hub -> server
    asgi                 the pages and every operation as an ASGI app, for who mounts it elsewhere
    server/              the edge: port, HTTP, sockets, polling; one table of operations, one dispatch with one deadline
    backends/            how we speak to things: sql (SQLite, PostgreSQL), redis, memory, system (clock, chance, threads)
    features/            the rules, one room each: log and access (under the others), auth, conversations, messages, presence
    hub/                 a library: channels, feeds, fan-out, outboxes; knows nothing of the rest
    fallback/            a library: what happens to each kind of data while its home is away, and what is told of that
    resilience/          a library: deadlines, bulkheads, retries, breakers around calls that may fail
    observe/             logs, figures, what is degraded
    config/              all settings     errors  the exception tree     ids  typed identifiers     ports  time, chance, bytes
    client/              the Python client     web/  the browser's     drill/  failure experiments     testing/  the failure lab

One chat message, in order: server/websocket takes a frame, server/session says it is a command, server/dispatch applies the
row of server/endpoints, features/messages asks features/access and makes an entry, features/log reserves room and appends,
backends/ store it and give it its number, hub/ lets it pass in order and writes it to every socket that listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secureconnect.app import SecureConnect
    from secureconnect.config import Settings

__all__ = ["SecureConnect", "Settings", "__version__"]

__version__ = "0.1.0"

_HOMES = {"SecureConnect": "secureconnect.app", "Settings": "secureconnect.config"}


def __getattr__(name: str) -> object:
    """The public names, loaded when they are used: `import secureconnect.hub` brings no server along."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
