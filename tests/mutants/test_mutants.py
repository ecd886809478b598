"""A check must be able to fail: every planted bug turns the tests red that guard against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLANTED: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "planted.toml").read_text(encoding="utf-8"))
TESTS_FAILED = 1
"""pytest's exit code: it ran, and something was red; a broken import or selection has another one."""
PATIENCE_S = 120


def test_there_are_at_least_twenty() -> None:
    assert len(PLANTED) >= 20


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_has_its_place(name: str) -> None:
    bug = PLANTED[name]
    text = (ROOT / "src" / "secureconnect" / bug["file"]).read_text(encoding="utf-8")
    assert text.count(bug["old"]) == 1, f"{bug['file']} has changed: plant {name} anew"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    bug = PLANTED[name]
    source = tmp_path / "secureconnect"
    shutil.copytree(ROOT / "src" / "secureconnect", source, ignore=shutil.ignore_patterns("__pycache__"))
    target = source / bug["file"]
    text = target.read_text(encoding="utf-8")
    target.write_text(text.replace(bug["old"], bug["new"]), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow and not service",
        *bug["tests"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == TESTS_FAILED, f"{bug['why']}: not found\n{done.stdout[-2000:]}{done.stderr[-500:]}"
