"""The sink for frameworks, on asyncio and trio: order, bounds, slow and vanished clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from secureconnect.hub import Frame, Hub, Limits, QueueSink
from secureconnect.hub.testing import MemorySource

pytestmark = pytest.mark.anyio

ROOM = "room:1"


def frame(payload: str, word: str | None = None) -> Frame:
    return Frame(payload.encode(), ROOM, "said", coalesce=word)


class Client:
    """A framework's connection: takes messages while `open` is set."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.open = anyio.Event()
        self.error: Exception | None = None
        self._changed = anyio.Event()

    async def send_text(self, text: str) -> None:
        await self.open.wait()
        await checkpoint()
        if self.error is not None:
            raise self.error
        self.got.append(text)
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, count: int) -> list[str]:
        while len(self.got) < count:
            await self._changed.wait()
        return self.got


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with anyio.fail_after(5):
        yield Client()


async def test_messages_leave_one_after_the_other_in_order(client: Client) -> None:
    client.open.set()
    async with QueueSink(client.send_text) as sink:
        assert sink.offer([frame("1"), frame("2")], droppable=False)
        assert sink.offer([frame("3")], droppable=True)
        assert await client.wait(3) == ["1", "2", "3"]
    assert sink.reason is None


@pytest.mark.parametrize("limits", [Limits(outbox_messages_max=4), Limits(outbox_bytes_max=4)], ids=["messages", "bytes"])
async def test_the_queue_is_bounded_and_says_when_there_is_room(client: Client, limits: Limits) -> None:
    async with QueueSink(client.send_text, limits) as sink:
        assert sink.offer([frame("0")], droppable=False)
        await checkpoint()
        await checkpoint()  # the first is on its way, and hangs
        assert sink.offer([frame("1"), frame("2")], droppable=False)
        assert not sink.offer([frame("x")], droppable=True), "half full"
        assert not sink.offer([frame("3"), frame("4"), frame("5")], droppable=False)
        assert sink.offer([frame("3"), frame("4")], droppable=False)
        assert sink.waiting == 4
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sink.wait_room, [frame("5")])
            client.open.set()
        assert sink.offer([frame("5")], droppable=False)
        assert await client.wait(6) == ["0", "1", "2", "3", "4", "5"]


async def test_a_newer_ephemeral_message_takes_the_place_of_one_that_waits(client: Client) -> None:
    async with QueueSink(client.send_text) as sink:
        sink.offer([frame("first")], droppable=False)
        sink.offer([frame("ann 1", "ann"), frame("bob 1", "bob")], droppable=True)
        sink.offer([frame("ann 2", "ann")], droppable=True)
        client.open.set()
        assert await client.wait(3) == ["first", "ann 2", "bob 1"]
        sink.offer([frame("ann 3", "ann")], droppable=True)
        assert (await client.wait(4))[-1] == "ann 3"


async def test_coalescing_can_be_left_off(client: Client) -> None:
    client.open.set()
    async with QueueSink(client.send_text, coalesces=False) as sink:
        sink.offer([frame("1", "ann"), frame("2", "ann")], droppable=True)
        assert await client.wait(2) == ["1", "2"]


async def test_a_client_that_does_not_take_a_message_in_time_ends_the_block(client: Client) -> None:
    async with QueueSink(client.send_text, Limits(write_wait_s=0.01)) as sink:
        sink.offer([frame("1")], droppable=False)
        await anyio.sleep_forever()
    assert sink.reason == "slow_consumer"
    assert not sink.offer([frame("2")], droppable=False)


@pytest.mark.parametrize("error", [ConnectionResetError(), anyio.BrokenResourceError()])
async def test_a_client_that_is_gone_ends_the_block_quietly(client: Client, error: Exception) -> None:
    client.error = error
    client.open.set()
    async with QueueSink(client.send_text) as sink:
        sink.offer([frame("1")], droppable=False)
        await anyio.sleep_forever()
    assert sink.reason == "disconnected"


async def test_what_the_framework_raises_for_a_closed_connection_can_be_named(client: Client) -> None:
    client.error = KeyError("the framework's own")
    client.open.set()
    async with QueueSink(client.send_text, closed_by=(KeyError,)) as sink:
        sink.offer([frame("1")], droppable=False)
        await anyio.sleep_forever()
    assert sink.reason == "disconnected"


async def test_any_other_exception_goes_through_the_block(client: Client) -> None:
    client.error = KeyError("bug")
    client.open.set()

    async def block() -> None:
        async with QueueSink(client.send_text) as sink:
            sink.offer([frame("1")], droppable=False)
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as failed:
        await block()
    assert failed.group_contains(KeyError)


async def test_hanging_up_ends_the_block_and_the_first_reason_counts(client: Client) -> None:
    async with QueueSink(client.send_text) as sink:
        sink.hang_up("slow_consumer")
        sink.hang_up("other")
        await anyio.sleep_forever()
    assert sink.reason == "slow_consumer"


async def test_in_a_hub_it_counts_what_left_and_leaves_with_the_block(client: Client) -> None:
    source = MemorySource()
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source})
    async with anyio.create_task_group() as tasks:
        await tasks.start(hub.run)
        async with QueueSink(client.send_text, hub.limits) as sink:
            peer = hub.connect(sink)
            await peer.prepare(ROOM)
            peer.start([ROOM])
            for n in range(3):
                hub.commit(ROOM, source.append(ROOM, b"%d" % n))
            for word in ("ann", "ann"):
                hub.send(ROOM, Frame(b"t", ROOM, "typing"), coalesce=word)
                await checkpoint()
            while hub.ledger.published < 5:
                await checkpoint()
            assert hub.ledger.balances
            client.open.set()
            await client.wait(4)
            hub.commit(ROOM, source.append(ROOM, b"last"))
            assert (await client.wait(5))[-1] == "last"
        assert not peer.is_open
        assert hub.members(ROOM) == ()
        assert hub.ledger.balances
        assert hub.ledger.pending == 0
        assert hub.ledger.dropped.get("coalesced") == 1
        tasks.cancel_scope.cancel()


async def test_a_client_that_takes_nothing_is_hung_up_on_by_the_hub(client: Client) -> None:
    """The slow-consumer ladder to its end: full, behind, no room for a while, closed, resumable."""
    source = MemorySource()
    limits = Limits(outbox_messages_max=2, replay_wait_s=0.02)
    hub = Hub(node="a", random=lambda: 0.5, sources={"room:": source}, limits=limits)
    async with anyio.create_task_group() as tasks:
        await tasks.start(hub.run)
        async with QueueSink(client.send_text, limits) as sink:
            peer = hub.connect(sink)
            await peer.prepare(ROOM)
            peer.start([ROOM])
            for n in range(9):
                hub.commit(ROOM, source.append(ROOM, b"%d" % n))
                await checkpoint()
            await anyio.sleep_forever()
        assert sink.reason == "slow_consumer"
        assert hub.ledger.hung_up == 1
        assert hub.ledger.balances
        tasks.cancel_scope.cancel()
