"""The way to the server encrypted, against a real one: who is not who it should be is not spoken to."""

from __future__ import annotations

import os
import random
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from tests.services.redis import RedisServer, free_port, running_redis

from secureconnect.backends.redis.address import Address
from secureconnect.backends.redis.bus import RedisBus
from secureconnect.backends.redis.connection import Limits, connect
from secureconnect.backends.redis.link import Link
from secureconnect.backends.redis.replies import Reply
from secureconnect.errors import BackendDown, Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.service]

PATIENCE_S = 20.0


class Encrypted:
    """A server that takes encrypted connections on `port`, and the test's own plain ones."""

    def __init__(self, server: RedisServer, folder: Path, port: int) -> None:
        self.server, self.port, self.certificate = server, port, folder / "redis.crt"

    def address(self, host: str = "localhost") -> Address:
        return Address.from_url(f"rediss://{host}:{self.port}?ssl_ca_certs={self.certificate}")


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder, port = tmp_path_factory.mktemp("redis-tls"), free_port()
    _certify(folder)
    files = {"tls-cert-file": "redis.crt", "tls-key-file": "redis.key", "tls-ca-cert-file": "redis.crt"}
    options = {name: str(folder / file) for name, file in files.items()}
    with running_redis(folder, **{"tls-port": str(port), "tls-auth-clients": "no", **options}) as server:
        yield Encrypted(server, folder, port)


def _certify(folder: Path) -> None:
    """For the name localhost, and for no address."""
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs openssl: apt-get install openssl")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "redis.key"), "-out", str(folder / "redis.crt")]
    subprocess.run([*command, *names], check=True, capture_output=True)


@asynccontextmanager
async def running(address: Address, use: str = "command") -> AsyncIterator[Link]:
    link = Link(address, use, random=random.random)
    async with anyio.create_task_group() as tasks:
        await tasks.start(link.run)
        yield link
        tasks.cancel_scope.cancel()


async def answered(link: Link, *parts: str | int) -> Reply:
    with anyio.fail_after(PATIENCE_S):
        while True:
            try:
                return await link.command(*parts)
            except Unavailable:
                await anyio.sleep(0.02)


async def test_many_callers_share_an_encrypted_connection_and_each_gets_its_own_answer(encrypted: Encrypted) -> None:
    async with running(encrypted.address()) as link:

        async def ask(n: int) -> None:
            for size in (1, 1_000, 100_000):
                assert await link.command("ECHO", f"{n}" * size) == f"{n}".encode() * size

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for n in range(20):
                    tasks.start_soon(ask, n)
        assert (link.generation, link.waiting) == (1, 0)


async def test_what_is_published_is_heard(encrypted: Encrypted) -> None:
    async with running(encrypted.address(), "publish") as link:
        bus = RedisBus(link)
        async with bus.subscribe() as subscriber:
            await subscriber.listen(["t"])
            await bus.publish("t", b"data")
            with anyio.fail_after(PATIENCE_S):
                assert await subscriber.receive() == ("t", b"data")


async def test_a_frozen_server_and_a_cut_connection_are_got_over_as_without(encrypted: Encrypted) -> None:
    async with running(encrypted.address()) as link:
        with encrypted.server.frozen(), anyio.fail_after(PATIENCE_S), pytest.raises(BackendDown, match="no answer within"):
            await link.command("GET", "x")
        assert await answered(link, "ECHO", "thawed") == b"thawed"
        generation = link.generation
        encrypted.server.cut("command")
        with anyio.fail_after(PATIENCE_S):
            while link.generation == generation:  # noqa: ASYNC110  # what a server does sets no event of ours
                await anyio.sleep(0.01)
        assert await answered(link, "ECHO", "again") == b"again"


async def refused(address: Address) -> str:
    with anyio.fail_after(PATIENCE_S), pytest.raises(BackendDown) as told:
        async with connect(address, "me", limits=Limits(connect_s=5)):
            pytest.fail("it is connected")
    return str(told.value)


async def test_a_server_that_nobody_vouches_for_and_one_of_another_name_are_not_spoken_to(encrypted: Encrypted) -> None:
    strange = replace(encrypted.address(), tls=ssl.create_default_context())
    assert "not to be trusted: self-signed certificate" in await refused(strange)
    assert "not to be trusted: IP address mismatch" in await refused(encrypted.address("127.0.0.1"))


async def test_a_server_that_wants_a_certificate_of_ours_is_down_and_says_so(encrypted: Encrypted) -> None:
    """It says so after the handshake, and hangs up: its words may be lost on the way."""
    encrypted.server.ask("CONFIG", "SET", "tls-auth-clients", "yes")
    try:
        assert "the server ended the connection" in await refused(encrypted.address())
    finally:
        encrypted.server.ask("CONFIG", "SET", "tls-auth-clients", "no")


async def test_nonsense_after_the_handshake_ends_the_connection_and_says_why(encrypted: Encrypted) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(encrypted.certificate, encrypted.certificate.with_suffix(".key"))

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            await stream.send(b"nonsense" * 9)
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="localhost")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        port = listener.extra(SocketAttribute.local_port)
        assert "WRONG_VERSION_NUMBER" in await refused(replace(encrypted.address(), port=port))
        tasks.cancel_scope.cancel()


async def test_one_side_encrypts_and_the_other_does_not(encrypted: Encrypted) -> None:
    await refused(replace(encrypted.address(), port=encrypted.server.port))
    await refused(replace(encrypted.address(), tls=None))
