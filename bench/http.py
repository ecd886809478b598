"""What does an HTTP request cost: a page of history, a message posted, a long poll woken?

16 connections, keep-alive. History is the newest 50 messages of a conversation; a posted message is on disk before its answer;
100 long polls wait on one conversation and one message wakes them all. `echo` is JSON in and out without any database, for the
bare cost of each stack (Go's net/http stands there too).
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass

from bench.harness.chats import STARLETTE, STARLETTE_H11, ChatPeerServer, chat_peers, requests
from bench.harness.contenders import OURS, Contender, Server, go_peer
from bench.harness.load import Answered, HttpLoad, Request
from bench.harness.measure import Options, lineup, middle
from bench.harness.report import Cell, Report
from bench.ours import Ours, OurServer

CONNECTIONS, WAITERS, CONTENT_BYTES = 16, 100, 128
GO = "go net/http"


@dataclass(frozen=True, slots=True)
class Asked:
    cpu_us: float
    answered: Answered


def commands(options: Options) -> dict[str, str]:
    seconds, rounds = (0.5, 10) if options.short else (2, 30)
    closed = f"closed conns={CONNECTIONS} seconds={seconds} size={CONTENT_BYTES} name="
    return {
        "history": closed + "history",
        "post": closed + "post",
        "wake": f"wake name=poll post=wake conns={WAITERS} rounds={rounds} size={CONTENT_BYTES} gap_ms=30",
        "echo": closed + "echo",
    }


def run(options: Options) -> None:
    todo = commands(options)
    report = Report("http", "CPU of a request: history, post, long-poll wake-up", {"rounds": options.rounds, **todo})
    contenders: list[Contender] = [*chat_peers(), go_peer(GO, "echo"), Ours()]
    chosen = options.chosen(contenders, short=[one.name for one in contenders])
    asked: dict[str, dict[str, list[Asked]]] = defaultdict(lambda: defaultdict(list))
    with lineup(chosen, report, sockets=WAITERS + 200) as up, ExitStack() as stack:
        loads: list[tuple[str, Server, HttpLoad]] = []
        for contender, server in up:
            load = HttpLoad(server.process.port, plan(server))
            stack.callback(load.close)
            if contender.name != GO:
                load.run("closed name=seed conns=4 seconds=0.5 size=128")
            loads.append((contender.name, server, load))
        for _ in range(options.rounds):
            for name, server, load in loads:
                for what, command in todo.items():
                    if name != GO or what == "echo":
                        asked[name][what].append(ask(name, what, server, load, command, report))
    tell(report, asked, list(todo))
    report.save(options.out)


def plan(server: Server) -> list[Request]:
    if isinstance(server, ChatPeerServer):
        return requests(server)
    if isinstance(server, OurServer):
        ours = requests(server)
        return [
            *ours[:-1],
            Request("echo", "GET", "/v1/auth/profile", server.token()),
        ]  # ours has no echo: its cheapest operation
    return [Request("echo", "POST", "/echo", "", '{"channel":"c","text":"hello there","n":7}')]


def ask(name: str, what: str, server: Server, load: HttpLoad, command: str, report: Report) -> Asked:
    before = server.process.cpu_s()
    answered = load.run(command)
    cpu_s = server.process.cpu_s() - before
    if answered.failed:
        report.note(f"{name}, {what}: {answered.failed} failed ({answered.error[:200]})")
    return Asked(cpu_s * 1e6 / answered.requests if answered.requests else float("nan"), answered)


def tell(report: Report, asked: dict[str, dict[str, list[Asked]]], what: list[str]) -> None:
    cpu = {name: {w: middle(a.cpu_us for a in by[w]) for w in what if w in by} for name, by in asked.items()}
    rows: list[list[Cell]] = []
    for name, by in asked.items():
        costs = [cpu[name].get(w) for w in what]
        rate = middle(a.answered.requests / a.answered.seconds for a in by.get("history", []))
        p99 = [middle(a.answered.latency_us.p99 / 1000 for a in by.get(w, [])) for w in ("history", "post", "wake")]
        rows.append([name, *costs, rate, *p99])
    columns = ["server", *(f"{w} µs" for w in what), "history/s", "history p99 ms", "post p99 ms", "wake p99 ms"]
    report.table("CPU per request; `echo` of ours is GET /v1/auth/profile", columns, rows)
    report.bars("CPU per request", "µs", {w: {name: by[w] for name, by in cpu.items() if w in by} for w in what})
    for w in ("history", "post", "wake"):
        for peer, limit in ((STARLETTE_H11, 0.3), (STARLETTE, 0.6)):
            ratios = [a.cpu_us / b.cpu_us for a, b in zip(asked[OURS][w], asked[peer][w], strict=False)]
            report.target(f"{w}, CPU against {peer}", middle(ratios), "<=", limit, unit="x")
