"""Kernel sockets behind the ports: what callers of `Transport` and `Listener` rely on, on real sockets."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from secureconnect.errors import ConfigError
from secureconnect.server import transport as under_test
from secureconnect.server.transport import SEND_BUFFER_BYTES, SocketListener, SocketTransport, open_listener


@asynccontextmanager
async def pair(*, host: str = "127.0.0.1") -> AsyncIterator[tuple[SocketTransport, trio.SocketStream]]:
    """The server's end and a client's."""
    listener = open_listener(host, 0)
    try:
        with trio.fail_after(5):
            client = await trio.open_tcp_stream(host or "127.0.0.1", listener.port)
            served = await listener.accept()
        yield served, client
        served.abort()
        await client.aclose()
    finally:
        listener.close()


def fill(transport: SocketTransport) -> int:
    """Write until the kernel takes no more; returns the bytes taken."""
    total = 0
    while True:
        try:
            total += transport.send_now(b"x" * 65_536)
        except BlockingIOError:
            return total


async def test_bytes_go_both_ways() -> None:
    async with pair() as (served, client):
        await client.send_all(b"ping")
        assert await served.receive(100) == b"ping"
        assert served.send_now(b"pong") == 4
        assert await client.receive_some(100) == b"pong"
        host, port = client.socket.getsockname()
        assert served.peer == f"{host}:{port}"


async def test_a_peer_that_does_not_read_is_noticed_at_once_and_its_reading_later() -> None:
    async with pair() as (served, client):
        taken = fill(served)
        assert taken < 16 * SEND_BUFFER_BYTES
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.wait_writable)
                await trio.testing.wait_all_tasks_blocked()
                while taken > 0 and not nursery.cancel_scope.cancel_called:
                    taken -= len(await client.receive_some(65_536))
                    if not nursery.child_tasks:
                        break
        assert served.send_now(b"more") == 4


async def test_the_end_of_the_peer_is_an_empty_read_and_ours_can_still_be_written() -> None:
    async with pair() as (served, client):
        await client.send_eof()
        assert await served.receive(100) == b""
        served.send_now(b"bye")
        served.send_eof()
        served.send_eof()
        assert await client.receive_some(100) == b"bye"
        assert await client.receive_some(100) == b""


async def test_abort_wakes_who_receives_and_who_waits_to_write_and_is_idempotent() -> None:
    async with pair() as (served, _):
        fill(served)
        woken = []

        async def waits(name: str) -> None:
            with pytest.raises(OSError, match="closed on this side"):
                await (served.receive(100) if name == "reader" else served.wait_writable())
            woken.append(name)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits, "reader")
                nursery.start_soon(waits, "writer")
                await trio.testing.wait_all_tasks_blocked()
                served.abort()
                served.abort()
        assert sorted(woken) == ["reader", "writer"]


async def test_an_aborted_transport_raises_oserror_whatever_is_asked() -> None:
    async with pair() as (served, _):
        served.abort()
        with pytest.raises(OSError, match=r".*"):
            served.send_now(b"x")
        with pytest.raises(OSError, match="closed on this side"):
            await served.receive(100)
        with pytest.raises(OSError, match="closed on this side"):
            await served.wait_writable()
        served.send_eof()


async def test_a_reset_by_the_peer_is_an_oserror() -> None:
    async with pair() as (served, client):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await client.aclose()
        with pytest.raises(ConnectionError):
            await served.receive(100)


async def test_accepted_sockets_are_bounded_and_quick() -> None:
    async with pair() as (served, _):
        raw = served._socket
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == under_test.USER_TIMEOUT_MS
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES  # the kernel doubles it
        assert not raw.getblocking()


@pytest.mark.parametrize("host", ["", "::1", "localhost"])
async def test_it_listens_where_it_is_told(host: str) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    async with pair(host=host) as (served, client):
        await client.send_all(b"x")
        assert await served.receive(1) == b"x"


async def test_the_url_is_one_that_works_on_this_machine() -> None:
    for host in ("", "0.0.0.0", "127.0.0.1"):
        listener = open_listener(host, 0)
        assert listener.url == f"http://127.0.0.1:{listener.port}"
        listener.close()


async def test_a_taken_port_is_named_with_its_setting() -> None:
    taken = open_listener("127.0.0.1", 0)
    with pytest.raises(ConfigError, match=f"SECURECONNECT_PORT: port {taken.port} is taken"):
        open_listener("127.0.0.1", taken.port)
    taken.close()


async def test_an_unknown_address_is_named_with_its_setting() -> None:
    with pytest.raises(ConfigError, match="SECURECONNECT_HOST"):
        open_listener("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="SECURECONNECT_HOST"):
        open_listener("no such host.invalid", 0)


async def test_a_port_that_is_not_permitted_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ConfigError, match="SECURECONNECT_PORT: this user may not listen on port 80;"):
        open_listener("127.0.0.1", 80)


async def test_a_closed_listener_says_so_also_to_who_waits() -> None:
    listener = open_listener("127.0.0.1", 0)

    async def waits() -> None:
        with pytest.raises(OSError, match="listener is closed"):
            await listener.accept()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            listener.close()
            listener.close()
        await waits()


async def test_out_of_descriptors_it_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting connection is closed, so that its peer does not hang; the next one is served."""
    listener = open_listener("127.0.0.1", 0)
    shortage = [OSError(errno.EMFILE, "Too many open files")]
    accept = socket.socket.accept

    def accepts(self: socket.socket) -> object:
        if shortage:
            raise shortage.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", accepts)
    with trio.fail_after(5):
        first = await trio.open_tcp_stream("127.0.0.1", listener.port)
        second = None
        async with trio.open_nursery() as nursery:
            served: list[SocketTransport] = []

            async def serve() -> None:
                served.append(await listener.accept())

            nursery.start_soon(serve)
            assert await first.receive_some(1) == b""
            second = await trio.open_tcp_stream("127.0.0.1", listener.port)
        assert listener.refused == 1
        served[0].send_now(b"hello")
        assert await second.receive_some(100) == b"hello"
        served[0].abort()
    await first.aclose()
    await second.aclose()
    listener.close()


async def test_a_connection_that_went_away_while_it_waited_does_not_end_the_accepting(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = open_listener("127.0.0.1", 0)
    gone: list[OSError] = [ConnectionAbortedError(errno.ECONNABORTED, "gone")]
    accept = SocketListener.accept
    prepared = under_test._prepared

    def prepares(connected: socket.socket, address: tuple[object, ...]) -> SocketTransport:
        if gone:
            connected.close()
            raise gone.pop()
        return prepared(connected, address)

    monkeypatch.setattr(under_test, "_prepared", prepares)
    with trio.fail_after(5):
        first = await trio.open_tcp_stream("127.0.0.1", listener.port)
        second = await trio.open_tcp_stream("127.0.0.1", listener.port)
        served = await accept(listener)
        assert served.peer.endswith(f":{second.socket.getsockname()[1]}")
    served.abort()
    await first.aclose()
    await second.aclose()
    listener.close()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
