"""`secureconnect migrate`: creates or upgrades the tables; `serve` does the same when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secureconnect.commands.terminal import DONE, Source, buildable, say, say_json
from secureconnect.config.show import without_password

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
    path = settings.sqlite_path
    place = without_password(settings.sql_url or "") if path is None else str(path)
    if json:
        say_json({"ok": True, "database": place})
    else:
        say(f"{place}: up to date")
    return DONE


async def _open(settings: Settings) -> None:
    from secureconnect.app import open_stores

    async with open_stores(settings):
        """Opening the stores is what brings their tables up to date."""
