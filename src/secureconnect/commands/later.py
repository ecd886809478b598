"""Commands of the interface that are not built yet: they say so, instead of pretending or being unknown."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from secureconnect.commands.terminal import NotBuilt

_Rest = Annotated[tuple[str, ...], Parameter(show=False, allow_leading_hyphen=True)]


def up(*arguments: _Rest) -> int:
    """Run a gateway and one process per role. Not built yet."""
    raise NotBuilt(
        ["up: not built yet: roles in processes of their own come with Redis and a networked SQL; `serve` is one process"]
    )


def doctor(*arguments: _Rest) -> int:
    """Try every dependency with its real operation. Not built yet."""
    raise NotBuilt(["doctor: not built yet: it comes with the networked stores; `config show --all` shows what is set"])


def why(*arguments: _Rest) -> int:
    """Explain a disconnect, a missing or late message, a refusal. Not built yet."""
    raise NotBuilt(["why: not built yet: it needs each connection's record of events; the log has closings with their reasons"])
