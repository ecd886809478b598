"""The command line: `secureconnect COMMAND`. Exit codes: 0 done, 1 failed, 2 misuse.

Commands are named here and imported when they are used, so that `--help` and `config show` load neither the server nor its
drivers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from secureconnect import __version__

COMMANDS = {
    "serve": ("serve:serve", "Run the server."),
    "config": ("config:app", "Show the settings, or check a file of them."),
    "user": ("user:app", "Add a user, or give one an access token."),
    "migrate": ("migrate:migrate", "Create or upgrade the tables of the database."),
    "drill": ("drill:drill", "Break what the server stands on, and report what was measured."),
    "up": ("later:up", "Run a gateway and one process per role (not built yet)."),
    "doctor": ("later:doctor", "Try every dependency (not built yet)."),
    "why": ("later:why", "Explain a disconnect, a message, a refusal (not built yet)."),
}


def command_line() -> App:
    """The commands with their help, not loaded yet."""
    app = App(
        name="secureconnect",
        help="A self-hosted real-time communication server that keeps working, and tells the truth, when things it needs fail.",
        version=__version__,
        result_action="return_value",
        default_parameter=Parameter(negative=()),  # no --no-json
    )
    for name, (place, summary) in COMMANDS.items():
        app.command(f"secureconnect.commands.{place}", name=name, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` None: the process's own. Returns the exit code."""
    try:
        code = command_line()(arguments, exit_on_error=False)
    except CycloptsError:
        return 2  # it has said what is wrong
    except KeyboardInterrupt:
        return 130  # 128 and the signal's number, as a shell says it
    except BrokenPipeError:
        return _reader_left()
    except BaseException as error:
        from secureconnect.commands.terminal import explained

        told = explained(error)
        if told is not None:
            return told
        raise
    return code if isinstance(code, int) else 0


def _reader_left() -> int:
    """`secureconnect config show --all | head`: the rest is not wanted, and the interpreter must not complain at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
