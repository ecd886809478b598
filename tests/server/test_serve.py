"""The life of a listener: what one connection does is its own affair."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from secureconnect.ports import Transport
from secureconnect.server.health import Readiness
from secureconnect.server.serve import Server
from secureconnect.testing.network import MemoryListener


class Face:
    """Fails for the first connection, serves the others until they end."""

    def __init__(self) -> None:
        self.served = 0
        self.drained = trio.Event()

    async def serve_connection(self, transport: Transport) -> None:
        self.served += 1
        if self.served == 1:
            raise RuntimeError("a bug")
        await transport.receive(1)

    async def drain(self) -> None:
        await self.drained.wait()


class Sockets:
    async def drain(self, grace_s: float) -> None:
        await trio.lowlevel.checkpoint()


async def test_an_exception_in_one_connection_ends_that_one_only(autojump_clock: MockClock) -> None:
    listener, face, readiness = MemoryListener(), Face(), Readiness()
    server = Server(listener, face, Sockets(), readiness=readiness, grace_s=5)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        broken, fine = listener.connect(), listener.connect()
        await wait_all_tasks_blocked()
        assert await broken.receive(1) == b""
        fine.send_now(b"x")
        assert (face.served, server.unexpected) == (2, 1)
        face.drained.set()
        server.stop()
    assert listener.closed


async def test_the_end_waits_for_requests_under_way_but_not_beyond_the_grace(autojump_clock: MockClock) -> None:
    listener, readiness = MemoryListener(), Readiness(started=True)
    server = Server(listener, Face(), Sockets(), readiness=readiness, grace_s=5)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert readiness.answer() == (True, "ready")
        began_s = trio.current_time()
        server.stop()
        await server.wait_ended()
    assert trio.current_time() - began_s == 5
    assert readiness.answer() == (False, "draining")
    assert listener.closed


async def test_who_asks_during_the_drain_is_still_heard(autojump_clock: MockClock) -> None:
    listener, face = MemoryListener(), Face()
    face.served = 1  # past its failure
    server = Server(listener, face, Sockets(), readiness=Readiness(), grace_s=5)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        server.stop()
        await wait_all_tasks_blocked()
        probe = listener.connect()
        await wait_all_tasks_blocked()
        assert face.served == 2
        probe.send_now(b"x")
        face.drained.set()


async def test_a_second_stop_ends_at_once(autojump_clock: MockClock) -> None:
    server = Server(MemoryListener(), Face(), Sockets(), readiness=Readiness(), grace_s=30)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        began_s = trio.current_time()
        server.stop()
        await wait_all_tasks_blocked()
        server.stop()
    assert trio.current_time() == began_s
