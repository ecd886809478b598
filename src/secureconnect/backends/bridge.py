"""The way to drivers that only speak asyncio: a loop whose calls end when their caller's time is over, whatever they do.

Theory. A driver may answer asyncio's cancel by asking its server first, and a frozen server never answers; trio-asyncio's own
cancel can be lost besides. So nothing here is ever cancelled. A call is an asyncio task that belongs to the bridge; the trio
task only waits to be woken, and may leave at any moment. Leaving calls `abort`, synchronous, which makes the work fail by itself
(it closes the connection under it); the task left behind, an orphan, ends within a few turns of the loop.

Importing this page patches asyncio for the whole process (trio-asyncio does): only a backend that needs it may, when it is used.
Of that patch we take one thing back: a plain `asyncio.run` beside trio, in a program or test that embeds us, stays asyncio's own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
import trio
import trio_asyncio

T = TypeVar("T")

GOODBYE_S: Final = 1.0
"""What was aborted ends in a few turns of the loop; this is for a process that is starved of CPU."""
GOODBYE_LOOK_S: Final = 0.005

_log = structlog.get_logger("secureconnect.bridge")

if not trio.lowlevel.in_trio_task():  # a policy that was set is left alone by trio-asyncio; inside trio it lets nobody set one
    asyncio.set_event_loop_policy(asyncio.get_event_loop_policy())


class Bridge:
    """The loop and the tasks on it: the only place that starts asyncio tasks, and that lets them go. Made by `open_bridge`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.left_total = 0
        """Calls whose caller left before they ended."""
        self._is_over = False
        self._under_way: dict[asyncio.Task[Any], Callable[[], None]] = {}
        self._orphans: set[asyncio.Task[Any]] = set()
        # All asyncio tasks run in the bridge's context. A caller's may be older than the loop, which is a context variable there;
        # and what a call leaves behind (a connection's callbacks) would speak in its name. The price: trace ids do not cross.
        self._context = contextvars.copy_context()

    @property
    def orphans(self) -> int:
        """Tasks that nobody waits for any more and that have not ended yet."""
        return len(self._orphans)

    async def run(
        self, work: Coroutine[Any, Any, T], *, abort: Callable[[], None], spill: Callable[[T], None] | None = None
    ) -> T:
        """What `work` returns or raises. `work` must not start asyncio tasks that outlive it.

        Raises: ConnectionError when the bridge is closed. What is under way then is aborted, and raises what that makes it raise.
        Cancellation: returns at once. `abort()` is called and must make `work` fail soon; a result that comes all the same is
        given to `spill`.
        """
        if self._is_over:
            work.close()
            abort()
            raise ConnectionError("the bridge is closed")
        caller: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        task = self.loop.create_task(work, context=self._context)
        self._under_way[task] = abort

        def ended(task: asyncio.Task[T]) -> None:
            del self._under_way[task]
            self._orphans.discard(task)
            if caller is not None:
                trio.lowlevel.reschedule(caller)
            elif not task.cancelled() and task.exception() is None and spill is not None:
                spill(task.result())  # exception() has looked at it, or asyncio would complain that nobody did

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            nonlocal caller
            caller = None  # here: `ended` may run before the caller does, and to wake a trio task twice is fatal
            return trio.lowlevel.Abort.SUCCEEDED

        task.add_done_callback(ended, context=self._context)
        try:
            await trio.lowlevel.wait_task_rescheduled(leave)
        except BaseException:
            self.left_total += 1
            if not task.done():  # it may have ended between the cancellation and this line
                self._orphans.add(task)
            abort()  # not in `leave`, which runs inside trio's scheduler
            raise
        return task.result()

    async def goodbye(self) -> None:
        """Abort what is under way, and let it end. Left to itself the loop would cancel it, and asyncio's own cancellation would
        come out at callers who have not been cancelled."""
        self._is_over = True
        for abort in list(self._under_way.values()):
            abort()
        with trio.move_on_after(GOODBYE_S, shield=True):
            while self._under_way:  # noqa: ASYNC110 (an event would burden every call; this runs once, at the end)
                await trio.sleep(GOODBYE_LOOK_S)
        if self._under_way:
            _log.error("calls_left", count=len(self._under_way))


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """A loop for the length of the block. Leaving it aborts what is under way.

    An error of the block leaves it as it is, not in the groups of the nurseries that stand around it.
    """
    with _Unwrapped():
        async with _open_loop() as bridge:
            yield bridge


class _Unwrapped:
    """A group of one is that one: callers tell errors apart by their class."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        inner = error
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        if inner is not None and inner is not error:
            raise inner from inner.__cause__


@asynccontextmanager
async def _open_loop() -> AsyncIterator[Bridge]:
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_report)
        bridge = Bridge(loop)
        try:
            yield bridge
        finally:
            await bridge.goodbye()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of trio-asyncio's handler, which raises in the loop's nursery: one stray error would end the process."""
    _log.error("asyncio_error", what=str(context.get("message")), error=repr(context.get("exception")))
