"""`secureconnect serve`: one process, from its settings to the last goodbye.

The first SIGTERM or SIGINT begins the paced drain, a second one ends everything at once; before the server is ready there is
nobody to say goodbye to, and the first one ends it.
"""

from __future__ import annotations

from typing import Literal

from secureconnect.commands.terminal import DONE, FAILED, Source, buildable
from secureconnect.config import without_effect

DEV_TIMES = 10
"""Who develops a client asks more often than who uses it (interface.md §9)."""


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    dev: bool = False,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
    source: Source | None = None,
) -> int:
    """Run the server until SIGTERM or Ctrl-C. When it accepts requests it prints one line: ready url=http://host:port

    Parameters
    ----------
    host
        Address to listen on (HOST).
    port
        Port to listen on; 0 picks a free one (PORT).
    dev
        Add two demo users, and print their tokens and commands to try. Rate limits are ten times as high.
    log_level
        The least severe line that is written (LOG_LEVEL).
    """
    settings = buildable(source, {"HOST": host, "PORT": port, "LOG_LEVEL": log_level})
    if dev:
        settings = settings.with_rates(DEV_TIMES)

    import structlog
    import trio

    from secureconnect.commands import running
    from secureconnect.observe import log

    log.configure(level=settings.log_level, format=settings.log_format)
    for name in without_effect(settings):
        structlog.get_logger("secureconnect.serve").warning("setting_without_effect_yet", name=name)
    return FAILED if trio.run(running.run, settings, dev) else DONE
