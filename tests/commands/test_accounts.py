"""`user`, `migrate` and `serve` on a real data folder: what operators and a newcomer do first."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 60
"""For one process to start and end, on a machine that is busy with other tests."""
PASSWORD = "correct horse battery"


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SECURECONNECT_")}


def run(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secureconnect", *arguments, "--data-dir", str(folder)],
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Served:
    """A server of this test's own, on a free port."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "secureconnect", "serve", "--port", "0", "--data-dir", str(folder), *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        self.url = self.first.strip().removeprefix("ready url=")

    def lines_until(self, word: str) -> list[str]:
        assert self.process.stdout is not None
        found: list[str] = []
        for line in self.process.stdout:
            found.append(line)
            if word in line:
                break
        return found

    def stop(self) -> tuple[int, str]:
        """The exit code, and the log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log

    def call(self, path: str, token: str = "", body: dict[str, object] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "data", "--dev")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate(timeout=PATIENCE_S)


def test_a_user_is_added_once_and_gets_tokens(tmp_path: Path) -> None:
    added = run(tmp_path, "user", "add", "--email", "Eva@Example.org", "--username", "eva", "--json")
    assert added.returncode == 0, added.stderr
    user = json.loads(added.stdout)
    assert (user["email"], user["username"]) == ("eva@example.org", "eva")
    assert len(user["password"]) >= 16
    for name in ("eva", "eva@example.org"):
        token = run(tmp_path, "user", "token", name, "--json")
        assert token.returncode == 0, token.stderr
        assert json.loads(token.stdout)["user_id"] == user["user_id"]
    plain = run(tmp_path, "user", "token", "eva")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", plain.stdout)
    unknown = run(tmp_path, "user", "token", "nobody")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("secureconnect: ")
    again = run(tmp_path, "user", "add", "--email", "eva@example.org", "--username", "eve")
    assert again.returncode == 1
    assert "Traceback" not in again.stderr


def test_a_token_from_a_folder_whose_name_is_mistyped_makes_nothing_there(tmp_path: Path) -> None:
    done = run(tmp_path / "typo", "user", "token", "eva")
    assert done.returncode == 2
    assert "there is no database" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_password_may_come_from_standard_input_and_is_then_not_printed(tmp_path: Path) -> None:
    arguments = ("user", "add", "--email", "e@example.org", "--username", "eva", "--password-stdin", "--json")
    added = run(tmp_path, *arguments, stdin=PASSWORD + "\n")
    assert added.returncode == 0, added.stderr
    assert "password" not in json.loads(added.stdout)
    assert PASSWORD not in added.stdout + added.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("add", "--email", "no address", "--username", "eva"), 2),
        (("add", "--email", "e@example.org", "--username", "eva", "--password", "short"), 2),
        (("add", "--email", "e@example.org", "--username", "eva", "--password", PASSWORD, "--password-stdin"), 2),
    ],
)
def test_a_wrong_user_command_says_why(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = run(tmp_path, "user", *arguments)
    assert done.returncode == code
    assert done.stderr.startswith("secureconnect: ")
    assert "Traceback" not in done.stderr


def test_migrate_makes_the_tables_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path / "new", "migrate", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"ok": True, "database": str(tmp_path / "new" / "secureconnect.db")}
    assert (tmp_path / "new" / "secureconnect.db").exists()


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secureconnect.db").write_bytes(b"not a database, but somebody's file " * 100)
    done = run(tmp_path, "migrate")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (tmp_path / "secureconnect.db").read_bytes().startswith(b"not a database")


@pytest.mark.slow
def test_a_newcomer_pastes_what_serve_dev_prints_and_it_works(served: Served, tmp_path: Path) -> None:
    assert re.fullmatch(r"ready url=http://127\.0\.0\.1:\d+\n", served.first)
    lines = served.lines_until("curl ")
    (curl,) = [line for line in lines if line.startswith("curl ")]
    sent = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    message = json.loads(sent.stdout)["data"]
    assert (message["content"], message["ack"]) == ("Hello, Ben!", "stored")
    passwords = json.loads((tmp_path / "data" / "demo.json").read_text())
    assert stat.S_IMODE((tmp_path / "data" / "demo.json").stat().st_mode) == 0o600
    login = served.call("/v1/auth/login", body={"email": "ben@example.org", "password": passwords["ben"]})["data"]
    listed = served.call(f"/v1/messages?conversation_id={message['conversation_id']}", login["access_token"])
    assert "Hello, Ben!" in json.dumps(listed)
    profile = urllib.request.Request(
        served.url + "/v1/auth/profile", headers={"Authorization": f"Bearer {login['access_token']}"}
    )
    with urllib.request.urlopen(profile, timeout=10) as answer:
        assert answer.headers["X-RateLimit-Limit"] == "500", "ten times as much as for everybody"
    code, log = served.stop()
    assert code == 0, log
    assert login["access_token"] not in log
    assert passwords["ben"] not in log


@pytest.mark.slow
def test_the_socket_snippet_shows_a_message_arrive(served: Served) -> None:
    lines = served.lines_until("curl ")
    listen = next(line for line in lines if "websockets.sync.client" in line)
    curl = next(line for line in lines if line.startswith("curl "))
    listener = subprocess.Popen(["bash", "-c", f"exec {listen}"], stdout=subprocess.PIPE, text=True)
    try:
        assert listener.stdout is not None
        assert json.loads(listener.stdout.readline())["event"] == "hello"
        assert json.loads(listener.stdout.readline())["id"] == 1
        subprocess.run(["bash", "-c", curl], capture_output=True, timeout=PATIENCE_S, check=True)
        for line in listener.stdout:
            event = json.loads(line)
            if event.get("event") == "message.created":
                assert event["data"]["content"] == "Hello, Ben!"
                break
        else:
            pytest.fail("the socket ended without the message")
    finally:
        listener.kill()
        listener.communicate(timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_second_start_finds_the_same_demo_and_the_same_secret(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        server = Served(tmp_path, "--dev")
        server.lines_until("curl ")
        code, log = server.stop()
        assert code == 0, log
        kept.append(((tmp_path / "demo.json").read_text(), (tmp_path / "secret").read_text()))
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_a_user_added_beside_a_running_server_can_log_in_at_once(served: Served, tmp_path: Path) -> None:
    added = run(tmp_path / "data", "user", "add", "--email", "e@example.org", "--username", "eva", "--password", PASSWORD)
    assert added.returncode == 0, added.stderr
    login = served.call("/v1/auth/login", body={"email": "e@example.org", "password": PASSWORD})["data"]
    token = run(tmp_path / "data", "user", "token", "eva").stdout.strip()
    for one in (login["access_token"], token):
        assert "data" in served.call("/v1/conversations", one)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(tmp_path, "serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"SECURECONNECT_PORT: port {port} is taken by another program" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_this_machine_does_not_have_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 1
    assert "SECURECONNECT_HOST: '192.0.2.1' is no address of this machine" in done.stderr


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "data", "serve", "--port", "0")
    assert done.returncode in (1, 2)
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr
