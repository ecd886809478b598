"""A large turn waits a moment for what has room reserved already, and for nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

import secureconnect.hub.pump as pump_module
from secureconnect.hub import Hub
from secureconnect.hub.testing import MemorySource, RecordingSocket

ROOM, SMALL = "room:1", "room:2"
WAIT_S = 0.004


class Writes(RecordingSocket):
    """Remembers when it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def send_now(self, data: bytes) -> int:
        self.at_s.append(trio.current_time())
        return super().send_now(data)


class Rig:
    def __init__(self, hub: Hub, source: MemorySource) -> None:
        self.hub, self.source = hub, source
        self.began_s = trio.current_time()

    async def join(self, count: int, channel: str = ROOM) -> list[Writes]:
        joined = [Writes() for _ in range(count)]
        for socket in joined:
            peer = self.hub.connect(socket)
            await peer.prepare(channel)
            peer.start([channel])
        return joined

    async def say(self, after_s: float, *, channel: str = ROOM) -> None:
        """Room now, the commit later."""
        with await self.hub.reserve(channel):
            await trio.sleep(after_s)
            self.hub.commit(channel, self.source.append(channel, b"{}"))

    def since_s(self, at_s: float) -> float:
        return round(at_s - self.began_s, 6)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(pump_module, "GATHER_FROM", 3)
    monkeypatch.setattr(pump_module, "GATHER_SINK_S", WAIT_S / 3)
    source = MemorySource()
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source})
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        yield Rig(hub, source)
        nursery.cancel_scope.cancel()


async def settled() -> None:
    await trio.sleep(1)


async def test_what_is_about_to_be_committed_leaves_in_the_same_write(rig: Rig, autojump_clock: MockClock) -> None:
    (one, *_) = await rig.join(3)
    async with trio.open_nursery() as nursery:
        for after_s in (0, 0.001, 0.003):
            nursery.start_soon(rig.say, after_s)
    await settled()
    assert [rig.since_s(at_s) for at_s in one.at_s] == [0.003]


async def test_what_comes_too_late_is_not_waited_for(rig: Rig, autojump_clock: MockClock) -> None:
    (one, *_) = await rig.join(3)
    async with trio.open_nursery() as nursery:
        for after_s in (0, 2 * WAIT_S):
            nursery.start_soon(rig.say, after_s)
    await settled()
    assert [rig.since_s(at_s) for at_s in one.at_s] == [WAIT_S, 2 * WAIT_S]


async def test_one_that_never_comes_costs_the_wait_and_no_more(rig: Rig, autojump_clock: MockClock) -> None:
    (one, *_) = await rig.join(3)
    with await rig.hub.reserve(ROOM):
        await rig.say(0)
        await settled()
    assert [rig.since_s(at_s) for at_s in one.at_s] == [WAIT_S]


async def test_a_lone_event_does_not_wait(rig: Rig, autojump_clock: MockClock) -> None:
    (one, *_) = await rig.join(3)
    await rig.say(0)
    await settled()
    assert [rig.since_s(at_s) for at_s in one.at_s] == [0]


async def test_a_small_channel_does_not_wait(rig: Rig, autojump_clock: MockClock) -> None:
    (one, *_) = await rig.join(2, SMALL)
    with await rig.hub.reserve(SMALL):
        await rig.say(0, channel=SMALL)
        await settled()
    assert [rig.since_s(at_s) for at_s in one.at_s] == [0]
