"""`secureconnect config`: what is set, and whether a file fits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cyclopts import App

from secureconnect.commands.terminal import DONE, FAILED, Source, complain, say, say_json, settings_from, table
from secureconnect.config import load, show
from secureconnect.errors import ConfigError

app = App(name="config", help="Show the settings, or check a file of them.")


@app.command(name="show")
def show_settings(*, source: Source | None = None, all: bool = False, json: bool = False, markdown: bool = False) -> int:
    """Print the settings in force; secrets are hidden.

    Parameters
    ----------
    all
        Every setting with its unit, default and meaning, not only those that were given.
    json
        As JSON.
    markdown
        The page docs/settings.md: defaults only, whatever is set here.
    """
    if markdown:
        say(show.markdown().rstrip("\n"))
        return DONE
    lines = show.lines(settings_from(source), every=all)
    if json:
        say_json({line.name: {k: v for k, v in dataclasses.asdict(line).items() if k != "name"} for line in lines})
        return DONE
    if not lines:
        say("Nothing is set: all defaults. `secureconnect config show --all` lists them.")
        return DONE
    head = ("NAME", "VALUE", "UNIT", "FROM", "MEANING" if all else "NOTE")
    say(table([head, *(_row(line, every=all) for line in lines)]))
    return DONE


def _row(line: show.Line, *, every: bool) -> tuple[str, ...]:
    note = f" [{line.note}]" if line.note else ""
    meaning = f"{line.help}{note}" if every else line.note
    return (line.name, show.as_text(line.value), line.unit, line.origin, meaning)


@app.command
def check(file: Path, *, json: bool = False) -> int:
    """Check a TOML file of settings, by itself: the environment does not count.

    Parameters
    ----------
    file
        The file.
    json
        As JSON: {ok, problems}.
    """
    problems: list[str] = []
    try:
        load(environ={}, file=file)
    except ConfigError as error:
        found = error.details.get("problems")
        problems = [str(one) for one in found] if isinstance(found, list) else [error.message]
    if json:
        say_json({"ok": not problems, "problems": problems})
    elif problems:
        complain(*problems)
    else:
        say(f"{file}: fits")
    return FAILED if problems else DONE
