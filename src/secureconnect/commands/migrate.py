"""`secureconnect migrate`: creates or upgrades the tables; `serve` does the same when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secureconnect.commands.terminal import DONE, Source, buildable, say, say_json

if TYPE_CHECKING:
    from secureconnect.config import Settings


def migrate(*, source: Source | None = None, json: bool = False) -> int:
    """Create or upgrade the tables of the database. Doing it again changes nothing.

    Parameters
    ----------
    json
        As JSON.
    """
    import trio

    settings = buildable(source)
    trio.run(_open, settings)
    if json:
        say_json({"ok": True, "database": str(settings.sqlite_path)})
    else:
        say(f"{settings.sqlite_path}: up to date")
    return DONE


async def _open(settings: Settings) -> None:
    from secureconnect.app import open_stores

    async with open_stores(settings):
        """Opening the stores is what brings their tables up to date."""
