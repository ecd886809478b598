"""`secureconnect serve`: one process, from its settings to the last goodbye.

The first SIGTERM or SIGINT begins the paced drain, a second one ends everything at once; before the server is ready there is
nobody to say goodbye to, and the first one ends it.
"""

from __future__ import annotations

import errno
from typing import Literal

from secureconnect.commands.terminal import DONE, FAILED, Source, buildable, complain, leaves
from secureconnect.config import Settings, without_effect

CANNOT_LISTEN = {
    errno.EADDRINUSE: "PORT",
    errno.EACCES: "PORT",
    errno.EADDRNOTAVAIL: "HOST",
    errno.EAFNOSUPPORT: "HOST",
}
"""Errors of bind(2), and the setting to look at."""


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
        Add two demo users, and print their tokens and commands to try.
    log_level
        The least severe line that is written (LOG_LEVEL).
    """
    settings = buildable(source, {"HOST": host, "PORT": port, "LOG_LEVEL": log_level})

    import structlog
    import trio

    from secureconnect.commands import running
    from secureconnect.observe import log

    log.configure(level=settings.log_level, format=settings.log_format)
    for name in without_effect(settings):
        structlog.get_logger("secureconnect.serve").warning("setting_without_effect_yet", name=name)
    forced = False
    try:
        forced = trio.run(running.run, settings, dev)
    except* OSError as group:
        if not any(error.errno in CANNOT_LISTEN for error in leaves(group) if isinstance(error, OSError)):
            raise
        _complain_of_address(settings, group)
        forced = True
    return FAILED if forced else DONE


def _complain_of_address(settings: Settings, group: BaseExceptionGroup[OSError]) -> None:
    """A port taken, forbidden, or an address that this machine does not have: named with the setting that changes it."""
    for error in leaves(group):
        if isinstance(error, OSError) and error.errno in CANNOT_LISTEN:
            name = CANNOT_LISTEN[error.errno]
            complain(f"{name}: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                     f"for example --{name.lower()} {'0' if name == 'PORT' else '127.0.0.1'}")  # fmt: skip
            return
