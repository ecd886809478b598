"""What a bench needs and the project does not: C programs, the peers' Python environment, `ws`, Go programs.

Everything is built at first use into `bench/.cache`, which git ignores. What cannot be had is named together with the command
that gets it (`Missing`), and the run goes on without it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1]
ROOT = BENCH.parent
CACHE = BENCH / ".cache"
PEERS = BENCH / "peers"

INSTALL_DEADLINE_S = 600  # a Go build of the largest peer takes two minutes on one core

allow_install = True
"""False (`--no-install`): nothing is fetched; what is not in the cache is missing."""


class Missing(Exception):
    """A server that cannot be measured here: its name or what it lacks, and the command that cures it."""

    def __init__(self, what: str, command: str, why: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.command = command
        self.why = why


def c_program(name: str) -> Path:
    """`bench/load/NAME.c`, compiled when it or the common header is newer than the program."""
    source, header, program = BENCH / "load" / f"{name}.c", BENCH / "load" / "common.h", CACHE / "bin" / name
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing(name, "apt-get install gcc")
    if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime, header.stat().st_mtime):
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return program


def python() -> str:
    """The interpreter of the peers' own environment, made from requirements.txt."""
    requirements, home = BENCH / "requirements.txt", CACHE / "venv"
    python = home / "bin" / "python"
    _once(
        "Python peers",
        home / "installed",
        _digest(requirements),
        [[sys.executable, "-m", "venv", str(home)], [str(python), "-m", "pip", "install", "-q", "-r", str(requirements)]],
    )
    return str(python)


def node() -> tuple[str, dict[str, str]]:
    """Node and the environment in which it finds `ws`."""
    program = shutil.which("node")
    if program is None:
        raise Missing("node", "apt-get install nodejs npm")
    home = CACHE / "node"
    command = ["npm", "install", "--no-fund", "--no-audit", "--silent", "--prefix", str(home), "ws"]
    _once("ws", home / "installed", "ws", [command])
    return program, {"NODE_PATH": str(home / "node_modules")}


def go_program(name: str) -> Path:
    """`bench/peers/go/NAME`, built when its source changed."""
    if shutil.which("go") is None:
        raise Missing(name, "apt-get install golang")
    home, program = PEERS / "go", CACHE / "bin" / name
    command = ["go", "-C", str(home), "build", "-o", str(program), f"./{name}"]
    digest = _digest(home / name / "main.go", home / "go.mod")
    _once(name, CACHE / "bin" / f"{name}.installed", digest, [command], present=program)
    return program


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _once(what: str, stamp: Path, digest: str, commands: list[list[str]], *, present: Path | None = None) -> None:
    """Runs the commands unless the stamp says that they ran for this very content."""
    if stamp.exists() and stamp.read_text() == digest and (present is None or present.exists()):
        return
    said = " && ".join(" ".join(_short(word) for word in command) for command in commands)
    if not allow_install:
        raise Missing(what, said)
    print(f"installing {what} into {_short(str(CACHE))} …", flush=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        except subprocess.CalledProcessError as error:
            raise Missing(what, said, error.stderr.strip()[-300:]) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(what, said, str(error)[:300]) from error
    stamp.write_text(digest)


def _short(word: str) -> str:
    return os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word
