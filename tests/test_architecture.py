"""The house rules, checked: who may import whom, what may appear where, how long things may be.

A rule that only lives in prose erodes; each rule here names the door it guards. To change a rule, change it here, and say why.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from secureconnect.config import ROWS

SRC = Path(__file__).parents[1] / "src" / "secureconnect"

FOUNDATION = {"errors", "ids", "ports", "config", "observe"}
PLAIN = {"errors", "ids", "ports", "observe"}

# Room -> rooms it may import. Itself is always allowed.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"app", "config", "errors"},  # the few public names, loaded lazily
    "errors": set(),
    "ids": set(),
    "ports": set(),
    "config": {"errors"},
    "observe": set(),
    "hub": set(),  # a library others embed: it knows nothing of us
    "resilience": {"errors"},
    "features": PLAIN | {"hub"},
    "fallback": FOUNDATION | {"hub", "resilience", "features"},
    "backends": FOUNDATION | {"hub", "resilience", "features"},
    "server": FOUNDATION | {"hub", "resilience", "features", "web"},
    "web": set(),  # plain files and the way to find them
    "client": {"errors"},
    "drill": FOUNDATION | {"client", "app", "resilience", "testing"},  # it starts the servers that the fixtures start
    "asgi": {"app", "config"},
    "testing": FOUNDATION | {"hub", "resilience", "features", "fallback", "backends", "server", "node", "app", "client"},
    "node": FOUNDATION | {"__init__", "hub", "resilience", "features", "fallback", "backends", "server"},
    "app": FOUNDATION | {"hub", "resilience", "features", "fallback", "backends", "server", "node"},
    "commands": FOUNDATION | {"__init__", "app", "client", "drill", "features"},
    "__main__": FOUNDATION | {"__init__", "commands"},
}

# Driver -> the places that may import it: a folder, or the beginning of a file's name.
DRIVER_HOME = {
    "redis": ("backends/redis",),
    "cassandra": ("backends/cassandra",),
    "hiredis": ("backends/redis",),
    "asyncpg": ("backends/sql",),
    "sqlite3": ("backends/sql",),
    "trio_asyncio": ("backends/bridge",),
    "asyncio": ("backends/bridge",),
    "quart": ("server/web",),
    "quart_trio": ("server/web",),
    "httptools": ("server/front", "server/websocket"),
    "hypercorn": ("server/serve",),
    "websockets": ("server/websocket", "client/websocket"),
    "argon2": ("features/auth",),
    "joserfc": ("features/auth",),
    "prometheus_client": ("observe/metrics",),
    "cyclopts": ("commands", "__main__"),
}

# Where nurseries are opened: an `async with` there owns the tasks.
NURSERY_HOMES = {"app", "node", "server", "hub", "backends", "fallback", "client", "drill", "testing", "commands"}

# The doors where an unexpected exception is logged and the rest goes on: one request, and around it what judges its head and
# writes its answer (`exchange`: a bug there would else end the connection without a word); one socket, one connection, one run,
# one request to the ASGI app, whose framework is not ours; one append, whose exception goes to its requesters' own doors; and one
# simulated run, whose end by an exception is a finding.
DOORS = (
    "server/dispatch", "server/exchange", "server/websocket", "server/serve", "server/jobs", "server/asgi_bridge",
    "features/log/pipeline", "testing/determinism",
)  # fmt: skip

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
TABLE_LINES_MAX = 150
PROTOCOL_METHODS_MAX = 7


def modules() -> Iterator[tuple[str, ast.Module, int]]:
    for path in sorted(SRC.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(SRC).as_posix(), ast.parse(text), text.count("\n")


def imports(tree: ast.Module, name: str) -> Iterator[str]:
    """Absolute dotted names imported by the module `name` (path below SRC).

    `from a.b import c` yields both `a.b` and `a.b.c`: c may be a module.
    """
    package = ["secureconnect", *name.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def test_there_is_a_house() -> None:
    """Every other rule here holds for an empty folder too."""
    assert len(list(modules())) >= 10


def test_every_module_says_what_it_is_for() -> None:
    assert [name for name, tree, _ in modules() if not ast.get_docstring(tree)] == []


def test_imports_point_inward() -> None:
    wrong = []
    for name, tree, _ in modules():
        here = room(name)
        for target in imports(tree, name):
            if not target.startswith("secureconnect."):
                continue
            there = target.split(".")[1]
            if there == "__version__":
                continue
            if there != here and there not in MAY_IMPORT.get(here, set()):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_features_meet_only_through_their_models() -> None:
    wrong = []
    for name, tree, _ in modules():
        parts = name.split("/")
        if parts[0] not in {"features", "backends", "fallback"} or len(parts) < 3:
            continue
        for target in imports(tree, name):
            t = target.split(".")
            if t[:2] != ["secureconnect", "features"] or len(t) < 4 or t[2] == parts[1]:
                continue
            allowed = {"model"} if parts[0] == "features" else {"model", "store"}
            if t[2] not in {"log", "access"} and t[3] not in allowed:  # the two foundation rooms
                wrong.append(f"{name} imports {target}")
    assert wrong == []


LIBRARIES = {"hub", "resilience", "fallback"}
"""Rooms that others embed without the rest."""
OURS_ONLY = {("node.py", "fallback", "alone")}
"""A library's page that puts its parts together for our own node, and is nothing to an embedder."""


def test_libraries_are_used_through_their_front_doors() -> None:
    """Others see what the library's __init__.py exports, as an embedder does; tests may use hub.testing."""
    wrong = []
    for name, tree, _ in modules():
        for target in imports(tree, name):
            _, library, *rest = [*target.split("."), ""]
            if library not in LIBRARIES or room(name) in {library, "testing"}:
                continue
            if (SRC / library / f"{rest[0]}.py").exists() and (name, library, rest[0]) not in OURS_ONLY:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_resilience_does_not_know_what_it_guards() -> None:
    """It may name a technology's numbers, and nothing else of it: no driver is imported, whatever its home."""
    used = {t.split(".")[0] for name, tree, _ in modules() if room(name) == "resilience" for t in imports(tree, name)}
    standard = sys.stdlib_module_names | {"secureconnect", "anyio"}
    assert sorted(used - standard) == []


def test_technologies_do_not_know_each_other() -> None:
    wrong = []
    for name, tree, _ in modules():
        parts = name.split("/")
        if parts[0] != "backends" or len(parts) < 3:
            continue
        for target in imports(tree, name):
            t = target.split(".")
            if t[:2] == ["secureconnect", "backends"] and t[2] not in {parts[1], "bridge", "bundle"}:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_each_driver_has_one_home() -> None:
    wrong = []
    for name, tree, _ in modules():
        for target in imports(tree, name):
            homes = DRIVER_HOME.get(target.split(".")[0])
            if homes and not name.startswith(homes):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_libraries_run_on_every_event_loop() -> None:
    """hub, fallback, resilience and client are for asyncio and trio users alike: anyio only. So is the Redis link, which an
    embedder's hub needs for its bus."""
    wrong = []
    for name, tree, _ in modules():
        anywhere = room(name) in {"hub", "fallback", "resilience", "client", "features"} or name.startswith("backends/redis/")
        if not anywhere:
            continue
        wrong += [f"{name} imports {t}" for t in imports(tree, name) if t.split(".")[0] in {"trio", "asyncio"}]
    assert wrong == []


def test_time_chance_and_threads_are_passed_in() -> None:
    """What the simulator must control is never imported below the composition root."""
    wrong = []
    for name, tree, _ in modules():
        if room(name) not in {"hub", "features", "resilience", "fallback", "server"}:
            continue
        forbidden = {"time", "random", "uuid", "secrets", "threading"}
        wrong += [f"{name} imports {t}" for t in imports(tree, name) if t.split(".")[0] in forbidden]
        wrong += [
            f"{name}:{node.lineno} to_thread"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "to_thread"
        ]
    assert wrong == []


def test_features_open_no_nursery_and_set_no_timeout() -> None:
    forbidden = {"open_nursery", "create_task_group", "sleep", "move_on_after", "fail_after"}
    forbidden |= {"CancelScope"}
    wrong = []
    for name, tree, _ in modules():
        if room(name) != "features":
            continue
        for node in ast.walk(tree):
            called = getattr(node, "attr", None) or getattr(node, "id", None)
            if called in forbidden:
                wrong.append(f"{name}: {called}")
    assert wrong == []


def test_no_shield_without_a_deadline() -> None:
    """`CancelScope(shield=True)` can hang; `move_on_after(seconds, shield=True)` cannot."""
    wrong = []
    for name, tree, _ in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and any(k.arg == "shield" for k in node.keywords):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called not in {"move_on_after", "fail_after", "move_on_at", "fail_at"}:
                    wrong.append(f"{name}:{node.lineno}")
            stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if isinstance(node, ast.Attribute) and stored and node.attr == "shield":
                wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_nothing_swallows_cancellation() -> None:
    """No bare `except:`; `except BaseException` must end in a bare `raise`."""
    wrong = []
    for name, tree, _ in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            words = ("everything", "BaseException", "Cancelled", "get_cancelled_exc_class")
            if any(word in caught for word in words):
                last = node.body[-1]
                if not (isinstance(last, ast.Raise) and last.exc is None):
                    wrong.append(f"{name}:{node.lineno} catches {caught}")
    assert wrong == []


def test_rooms_stay_small() -> None:
    wrong = []
    for name, tree, lines in modules():
        if lines > MODULE_LINES_MAX:
            wrong.append(f"{name}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                is_table = name.startswith("server/") and node.name == "endpoints"  # rows are data, not steps
                if length > (TABLE_LINES_MAX if is_table else FUNCTION_LINES_MAX):
                    wrong.append(f"{name}:{node.name}: {length} lines")
    assert wrong == []


def test_nurseries_are_opened_where_tasks_may_live() -> None:
    wrong = []
    for name, tree, _ in modules():
        if room(name) in NURSERY_HOMES:
            continue
        wrong += [
            f"{name}:{node.lineno} opens a nursery"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in {"open_nursery", "create_task_group"}
        ]
    assert wrong == []


def test_only_the_doors_catch_everything() -> None:
    """`except Exception` elsewhere hides bugs, or dresses them as something that may pass."""
    wrong = []
    for name, tree, _ in modules():
        if name.startswith(DOORS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if any(ast.unparse(one) in {"Exception", "builtins.Exception"} for one in caught):
                    wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_ports_are_small() -> None:
    """A Protocol with more than seven methods is two protocols."""
    wrong = []
    for name, tree, _ in modules():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or not any("Protocol" in ast.unparse(base) for base in node.bases):
                continue
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            if len(methods) > PROTOCOL_METHODS_MAX:
                wrong.append(f"{name}:{node.name}: {len(methods)} methods")
    assert wrong == []


def test_names_say_what_is_inside() -> None:
    """`utils` is where things go that nobody could place; then nobody can find them."""
    vague = {"utils", "util", "helpers", "helper", "base", "common", "misc"}
    assert [name for name, _, _ in modules() if vague & set(name.removesuffix(".py").split("/"))] == []


def test_public_classes_say_what_they_are_for() -> None:
    """Modules are held above. The params of routes may go without: their fields are the schema of an operation with a summary."""
    wrong = []
    for name, tree, _ in modules():
        if name.startswith("server/routes/"):
            continue
        wrong += [
            f"{name}:{node.lineno} {node.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
            if not any(ast.unparse(base) == "msgspec.Struct" for base in node.bases)
        ]
    assert wrong == []


def test_every_setting_that_claims_to_work_is_read() -> None:
    """A setting that is accepted and does nothing is a lie; one that waits for its part says `later` in its row."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py")))
    read = set(re.findall(r"\b(?:self\.settings|settings|self)\.([a-z0-9_]+)\b", text))
    claimed = [row.field for row in ROWS if row.status == "works"]
    assert [field for field in claimed if field not in read] == []
