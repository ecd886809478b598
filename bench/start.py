"""How long from the start of the process to its first answer, and how long does the import take?

`first`: on an empty data folder (schemas are made); `again`: on the same folder. The peers, without a store,
are here for scale.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.harness import cache
from bench.harness.cache import Missing
from bench.harness.contenders import OURS, Contender, room_peers
from bench.harness.measure import Options, middle
from bench.harness.processes import SERVER_CORE, START_DEADLINE_S, Process, free_port, pinned
from bench.harness.report import Report
from bench.ours import PROGRAM, SETTINGS, Ours

PEERS = {"aiohttp on uvloop", "starlette on uvicorn (websockets)", "ws on node", "centrifugo's engine"}
IMPORTS = ("secureconnect", "secureconnect.hub", "secureconnect.app")


def run(options: Options) -> None:
    report = Report("start", "from process start to the first answer; import time", {"rounds": options.rounds})
    started: dict[str, list[float]] = defaultdict(list)
    imported: dict[str, list[float]] = defaultdict(list)
    contenders: list[Contender] = [one for one in room_peers() if one.name in PEERS]
    for contender in options.chosen(contenders):
        try:
            contender.start().stop()  # builds what is missing, so that no build is timed
            for _ in range(options.rounds):
                started[contender.name].append(peer_start_s(contender))
            report.version(contender.name, contender.version())
        except Missing as missing:
            report.missing(contender.name, missing)
    for _ in range(options.rounds):
        our_starts(started, report)
        for module in IMPORTS:
            import_s(module, imported, report)
    tell(report, started, imported)
    report.save(options.out)


def peer_start_s(contender: Contender) -> float:
    server = contender.start()
    try:
        return first_answer_s(server.process)
    finally:
        server.stop()


def our_starts(started: dict[str, list[float]], report: Report) -> None:
    if not PROGRAM.exists():
        return
    with tempfile.TemporaryDirectory(prefix="bench-start-") as folder:
        for what in ("first", "again"):
            port = free_port()
            env = {**SETTINGS, "SECURECONNECT_DATA_DIR": f"{folder}/data"}
            process = Process([str(PROGRAM), "serve", "--port", str(port)], port=port, env=env, log=Path(folder) / "log")
            try:
                started[f"{OURS}, {what}"].append(first_answer_s(process))
            except OSError as error:
                report.note(f"{OURS}: {error}")
            finally:
                process.stop()


def first_answer_s(process: Process) -> float:
    """Any HTTP answer counts; what a peer says to `/livez` is its own affair."""
    while time.monotonic() < process.started + START_DEADLINE_S and process.alive():
        link = HTTPConnection("127.0.0.1", process.port, timeout=START_DEADLINE_S)
        try:
            link.request("GET", "/livez")
            link.getresponse()
            return time.monotonic() - process.started
        except (OSError, HTTPException):
            time.sleep(0.002)
        finally:
            link.close()
    raise OSError("no answer")


def import_s(module: str, imported: dict[str, list[float]], report: Report) -> None:
    """Inside the interpreter, after its own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=cache.ROOT,
        preexec_fn=lambda: pinned(SERVER_CORE),
    )
    if ran.returncode:
        report.note(f"import {module}: {ran.stderr.strip().splitlines()[-1]}")
        return
    imported[module].append(float(ran.stdout))


def tell(report: Report, started: dict[str, list[float]], imported: dict[str, list[float]]) -> None:
    report.table("Start to first answer", ["server", "s"], [[name, middle(values)] for name, values in started.items()])
    report.table("Import", ["module", "s"], [[name, middle(values)] for name, values in imported.items()])
    report.bars("start", "s", {"first answer": {name: middle(values) for name, values in started.items()}})
    for what in ("first", "again"):
        values = started.get(f"{OURS}, {what}")
        report.target(f"first answer, {what} start", middle(values) if values else None, "<=", 1.0, unit=" s")
    slowest = max((middle(values) for values in imported.values()), default=None)
    report.target("import of the largest of these modules", slowest, "<=", 0.4, unit=" s")
    report.version(OURS, Ours().version())
