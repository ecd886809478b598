"""All settings: read once from flags, environment and file into one frozen, validated object.

`settings` is the list, `kinds` and `rules` what fits, `sources` where values come from, `show` how people read them.
"""

from secureconnect.config.rules import not_built as _not_built
from secureconnect.config.rules import without_effect as _without_effect
from secureconnect.config.settings import ROWS, Settings
from secureconnect.config.sources import Loaded, load

__all__ = ["ROWS", "Loaded", "Settings", "load", "not_built", "without_effect"]


def not_built(settings: Settings) -> list[str]:
    """Sentences about settings that count on parts not built yet; `serve` stops when there is one."""
    return _not_built(settings, ROWS)


def without_effect(settings: Settings) -> list[str]:
    """Names of settings that were changed and do nothing yet."""
    return _without_effect(settings, ROWS)
