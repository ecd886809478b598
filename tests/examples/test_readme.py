"""What the README tells people to paste works as it stands."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from secureconnect.testing.process import ServerProcess

README = (Path(__file__).parents[2] / "README.md").read_text()

pytestmark = pytest.mark.slow  # it needs curl, which `make programs` sees to


def block(kind: str, within: str) -> str:
    """The fenced block of this kind that has `within` in it."""
    (found,) = [text for text in re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) if within in text]
    return str(found)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data", settings={"RATE_LIMITS": "on"}, dev=True)  # as `make run` starts it
    server.start()
    yield server
    server.stop()


def test_the_first_message(server: ServerProcess) -> None:
    script = block("sh", "/v1/messages").replace("http://127.0.0.1:8080", server.url)
    told = '\necho; echo "$TOKEN"; echo "$CONVERSATION"'
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script + told], capture_output=True, text=True, timeout=60, check=True
    )
    answer, token, conversation = ran.stdout.splitlines()
    assert json.loads(answer)["data"]["ack"] == "stored"

    lines = block("json", "messages.send").splitlines()
    with connect(server.url.replace("http", "ws") + f"/v1/ws?token={token}") as socket:
        for line in lines:
            socket.send(line.replace("…", conversation))
        heard = [json.loads(socket.recv(timeout=5)) for _ in range(4)]
    assert heard[0]["event"] == "hello"
    assert heard[1]["result"]["channels"][f"conversation:{conversation}"]["recovered"] is True
    assert {tuple(sorted(frame)) for frame in heard[2:]} == {("id", "result"), ("channel", "data", "event", "sequence")}
    assert {frame["data"]["content"] for frame in heard[2:] if "data" in frame} == {"Hello again"}
