"""The bridge to asyncio: who leaves is free at once, and what he leaves behind harms nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar

import pytest
import structlog
import trio
import trio.testing

from secureconnect.backends.bridge import Bridge, open_bridge


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    async with open_bridge() as opened:
        yield opened


class Work:
    """A call of a driver that ends when the test says so."""

    def __init__(self, bridge: Bridge) -> None:
        self.future: asyncio.Future[str] = bridge.loop.create_future()
        self.aborted = 0
        self.spilt: list[str] = []

    async def call(self) -> str:
        return await self.future

    def abort(self) -> None:
        """As closing the connection does it: the call fails by itself."""
        self.aborted += 1
        if not self.future.done():
            self.future.set_exception(ConnectionError("closed"))

    def frozen(self) -> None:
        """An abort that changes nothing yet."""
        self.aborted += 1


async def settled(bridge: Bridge) -> None:
    with trio.fail_after(5):
        while bridge.orphans:
            await trio.testing.wait_all_tasks_blocked()


async def test_a_call_returns_its_result_or_raises_its_error(bridge: Bridge) -> None:
    good, bad = Work(bridge), Work(bridge)
    good.future.set_result("done")
    bad.future.set_exception(KeyError("no"))
    assert await bridge.run(good.call(), abort=good.abort) == "done"
    with pytest.raises(KeyError):
        await bridge.run(bad.call(), abort=bad.abort)
    assert (good.aborted, bad.aborted, bridge.left_total, bridge.orphans) == (0, 0, 0, 0)


async def test_who_leaves_is_free_at_once_though_the_work_goes_on(bridge: Bridge) -> None:
    work = Work(bridge)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: bridge.run(work.call(), abort=work.frozen, spill=work.spilt.append))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (work.aborted, bridge.left_total, bridge.orphans) == (1, 1, 1)
    work.future.set_result("late")
    await settled(bridge)
    assert work.spilt == ["late"], "a connection that comes after all must be closed by somebody"


async def test_the_task_left_behind_ends_by_its_abort_and_its_error_is_nobodys(bridge: Bridge) -> None:
    work = Work(bridge)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: bridge.run(work.call(), abort=work.abort, spill=work.spilt.append))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await settled(bridge)
    assert (work.aborted, work.spilt) == (1, [])


@pytest.mark.parametrize("order", ["result first", "cancel first"])
async def test_a_result_and_a_cancellation_in_one_moment_wake_the_caller_once(bridge: Bridge, order: str) -> None:
    """To wake a trio task twice ends the process. Whichever wins, a result is returned or spilt, and no orphan is left."""
    for turns in range(6):
        work = Work(bridge)
        returned: list[str] = []

        async def call(work: Work = work, returned: list[str] = returned) -> None:
            returned.append(await bridge.run(work.call(), abort=work.abort, spill=work.spilt.append))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            if order == "result first":
                work.future.set_result("done")
            else:
                nursery.cancel_scope.cancel()
            for _ in range(turns):
                await trio.lowlevel.cancel_shielded_checkpoint()
            if order == "result first":
                nursery.cancel_scope.cancel()
            elif not work.future.done():
                work.future.set_result("done")
        await settled(bridge)
        assert len(returned) + len(work.spilt) + work.aborted >= 1
        assert not (returned and work.spilt)


async def test_a_stray_error_on_the_loop_is_logged_and_ends_nothing(bridge: Bridge) -> None:
    with structlog.testing.capture_logs() as logs:
        bridge.loop.call_soon(lambda: 1 / 0)
        await trio.testing.wait_all_tasks_blocked()
    assert [line["event"] for line in logs] == ["asyncio_error"]
    work = Work(bridge)
    work.future.set_result("alive")
    assert await bridge.run(work.call(), abort=work.abort) == "alive"


async def test_when_it_is_closed_who_waits_gets_the_error_of_the_abort_and_who_comes_is_refused() -> None:
    """Never asyncio's cancellation: nobody has cancelled them."""
    told: list[BaseException] = []

    async def call(bridge: Bridge, work: Work) -> None:
        try:
            await bridge.run(work.call(), abort=work.abort)
        except ConnectionError as error:
            told.append(error)

    async with trio.open_nursery() as outer, open_bridge() as bridge:
        outer.start_soon(call, bridge, Work(bridge))
        await trio.testing.wait_all_tasks_blocked()
        late = Work(bridge)
    await call(bridge, late)
    assert [str(error) for error in told] == ["closed", "the bridge is closed"]
    assert late.aborted == 1


async def test_an_error_of_the_block_leaves_it_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_bridge(), trio.open_nursery():
            raise KeyError("mine")


async def test_a_deadline_around_the_block_ends_it() -> None:
    with trio.fail_after(5), trio.move_on_after(0) as scope:
        async with open_bridge():
            await trio.sleep_forever()
    assert scope.cancelled_caught


request: ContextVar[str] = ContextVar("request", default="none")


async def test_what_a_call_leaves_on_the_loop_does_not_speak_in_its_callers_name(bridge: Bridge) -> None:
    """A connection dialled for one request serves others for an hour: its callbacks must not log the first one's id."""
    seen: list[str] = []

    async def work() -> None:
        seen.append(request.get())
        bridge.loop.call_soon(lambda: seen.append(request.get()))

    request.set("of somebody")
    await bridge.run(work(), abort=lambda: None)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["none", "none"]


async def test_a_caller_from_an_outer_nursery_finds_the_loop() -> None:
    """Its context is older than the loop."""
    found: list[str] = []

    async def call(bridge: Bridge) -> None:
        async def work() -> None:
            async with asyncio.timeout(5):
                await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
            found.append(type(asyncio.get_running_loop()).__name__)

        await bridge.run(work(), abort=lambda: None)

    async with trio.open_nursery() as outer:
        send, receive = trio.open_memory_channel[Bridge](0)
        outer.start_soon(_call_with_what_comes, receive, call)
        async with open_bridge() as bridge, send:
            await send.send(bridge)
            with trio.fail_after(5):
                while not found:
                    await trio.testing.wait_all_tasks_blocked()
    assert found == ["TrioEventLoop"]


async def _call_with_what_comes(receive: trio.MemoryReceiveChannel[Bridge], call: Callable[[Bridge], Awaitable[None]]) -> None:
    async with receive:
        async for bridge in receive:
            await call(bridge)


def test_nobody_gets_a_patched_asyncio_who_did_not_configure_a_server() -> None:
    """trio-asyncio patches asyncio for the whole process when it is imported."""
    code = (
        "import sys, secureconnect.app, secureconnect.backends.embedded, secureconnect.hub; print('trio_asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_plain_asyncio_loop_stays_one() -> None:
    """Else every asyncio test of the hub would run on trio in disguise, as soon as somebody imports the bridge."""
    code = "import asyncio, secureconnect.backends.bridge\nasync def main(): print(type(asyncio.get_running_loop()).__module__)\n"
    done = subprocess.run([sys.executable, "-c", code + "asyncio.run(main())"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "asyncio.unix_events"
