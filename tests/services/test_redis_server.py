"""The fixture's own promises: a missing program is told, a taken port is passed by, a dead server is found dead."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from tests.services.redis import redis_program, running_redis

from secureconnect.testing import redis_server as services


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)], ids=["in CI", "at home"]
)
def test_without_a_program_tests_are_skipped_and_fail_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="apt-get install redis-server"):
        redis_program()


@pytest.mark.service
def test_a_port_that_was_taken_meanwhile_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_redis(tmp_path) as first:
        ports = [first.port, services.free_port()]
        monkeypatch.setattr(services, "free_port", lambda: ports.pop(0))
        with running_redis(tmp_path) as second:
            assert second.port != first.port
            first.ask("SET", "x", 1)
            assert second.ask("EXISTS", "x") == 0


@pytest.mark.service
def test_it_is_killed_and_comes_back_empty_on_its_port(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        port = server.port
        assert port in services.PORTS
        server.ask("SET", "x", 1)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            server.ask("PING")
        server.clean()
        assert server.port == port
        assert server.ask("EXISTS", "x") == 0
        server.freeze()
        server.kill()
        server.clean()
        assert server.ask("PING")
