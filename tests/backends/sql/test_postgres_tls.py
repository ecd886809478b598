"""TLS to the database: a dial on a socket that trio has connected, upgraded by the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from tests.backends.sql.postgres_kit import need_postgres

from secureconnect.backends.sql.engine import Plan
from secureconnect.backends.sql.postgres import open_postgres
from secureconnect.errors import ConfigError
from secureconnect.testing.postgres_server import USER, PostgresServer

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def encrypted() -> Iterator[PostgresServer]:
    """Takes encrypted connections, with a certificate of its own, and plain ones."""
    need_postgres()
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs openssl: apt-get install openssl")
    server = PostgresServer(durable=False)
    try:
        server.create()
        server.stop()
        _certify(server)
        server.start()
        yield server
    finally:
        server.remove()


def _certify(server: PostgresServer) -> None:
    data = server.folder / "data"
    names = {"-keyout": data / "server.key", "-out": data / "server.crt"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, *(str(word) for pair in names.items() for word in pair)], check=True, capture_output=True)
    for path in names.values():
        path.chmod(0o600)
        if os.getuid() == 0:
            shutil.chown(path, USER, USER)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("\nssl = on\n")


def is_encrypted() -> Plan[bool]:
    ((ssl,),) = yield "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", ()
    return bool(ssl)


@pytest.mark.parametrize(("mode", "encrypts"), [("disable", False), ("prefer", True), ("require", True)])
async def test_the_address_says_whether_the_way_is_encrypted(encrypted: PostgresServer, mode: str, encrypts: bool) -> None:
    url = encrypted.url.replace("sslmode=disable", f"sslmode={mode}")
    async with open_postgres(url, random=lambda: 0.5) as database:
        assert await database.engine("chat").read(is_encrypted) is encrypts


async def test_a_certificate_that_nobody_vouches_for_is_refused_where_one_is_asked_for(encrypted: PostgresServer) -> None:
    url = encrypted.url.replace("sslmode=disable", "sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt")
    with pytest.raises(ConfigError, match="certificate"):
        async with open_postgres(url, random=lambda: 0.5):
            raise AssertionError("opened")


async def test_a_wrong_password_over_an_encrypted_way_stops_the_start(encrypted: PostgresServer) -> None:
    """Where encryption is preferred, the driver would try again without it."""
    hba = encrypted.folder / "data" / "pg_hba.conf"
    hba.write_text("host all guest 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
    encrypted.sql("CREATE ROLE guest LOGIN PASSWORD 'right'")
    encrypted.sql("SELECT pg_reload_conf()")
    url = encrypted.url.replace("postgres@", "guest:wrong@").replace("?sslmode=disable", "")
    with pytest.raises(ConfigError, match="password is wrong"):
        async with open_postgres(url, random=lambda: 0.5):
            raise AssertionError("opened")
