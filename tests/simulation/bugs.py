"""Bugs that the simulator must find: each stands where a developer could make it, and is put in from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from anyio.lowlevel import checkpoint

from secureconnect import node
from secureconnect.backends import appends
from secureconnect.backends.bundle import Bundle
from secureconnect.backends.memory import log as memory_log
from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.sql import probes
from secureconnect.backends.sql.engine import Engine, Plan
from secureconnect.features.auth.model import Revocation
from secureconnect.features.auth.revocations import RevocationSet
from secureconnect.features.auth.store import RevocationStore
from secureconnect.features.lockout.locks import LockSet
from secureconnect.features.lockout.model import Tally
from secureconnect.features.log.draft import Draft, draft
from secureconnect.features.log.lanes import Call
from secureconnect.features.log.model import Appended, Entry, NewEntry
from secureconnect.features.log.pipeline import Pipeline
from secureconnect.features.log.service import Log, Receipt
from secureconnect.hub import Item, digest
from secureconnect.hub import peer as hub_peer
from secureconnect.hub.digest import Reader
from secureconnect.hub.feed import Feed
from secureconnect.hub.outbox import Outbox
from secureconnect.hub.place import Place, place_in_log
from secureconnect.ids import ConversationId, MessageId, NodeId
from secureconnect.ports import Clock
from secureconnect.resilience import Stack
from secureconnect.server.health import Dependency
from secureconnect.server.websocket_native import NativeSocket
from secureconnect.server.websocket_subscriptions import Subscriptions


@contextmanager
def planted(bug: str | None) -> Iterator[None]:
    """The product with one bug more. None: as it is."""
    with nullcontext() if bug is None else BUGS[bug]():
        yield


@contextmanager
def _lost_on_reconnect() -> Iterator[None]:
    """Who comes back says where it was and is joined at the tail."""

    def at_the_tail(after: int | str | None, **known: Any) -> tuple[Place, int]:  # noqa: ANN401  # passed through
        place, _ = place_in_log(after, **known)
        return place, int(place.position)

    with patch.object(hub_peer, "place_in_log", at_the_tail):
        yield


@contextmanager
def _missing_deadline() -> Iterator[None]:
    """An append waits for the store as long as the store likes."""

    async def attempt(pipeline: Pipeline, call: Call, attempt_s: float) -> None:
        await pipeline.attempt(call)

    with patch.object(appends, "_attempt", attempt):
        yield


@contextmanager
def _unbounded_queue() -> Iterator[None]:
    """The line in front of a slow socket takes everything."""
    with patch.object(Outbox, "fits", lambda self, messages, size, droppable=False: True):
        yield


@contextmanager
def _retry_without_key() -> Iterator[None]:
    """What was stored under a key is not looked for, so a retry stores it again."""

    def forgetful(entries: Sequence[NewEntry], *, known: Mapping[str, Entry], deleted: Mapping[MessageId, bool]) -> Draft:
        return draft(entries, known={}, deleted=deleted)

    with patch.object(memory_log, "draft", forgetful):
        yield


@contextmanager
def _publish_out_of_order() -> Iterator[None]:
    """What comes over the bus is passed on as it comes."""

    def pass_anything(self: Feed, item: Item, passed: list[Item]) -> bool:
        if self.cursor is None:
            return False
        if item.sequence <= self.cursor:
            return True
        self.room.take(item)
        self.cursor = item.sequence
        passed.append(item)
        return True

    with patch.object(Feed, "_pass", pass_anything):
        yield


@contextmanager
def _cancelled_between() -> Iterator[None]:
    """The requester publishes what was stored for it; when it is cancelled, nobody does."""
    stored = Log._stored

    def nothing(self: Log, conversation: ConversationId, appended: Sequence[Appended]) -> None:
        """The pipeline leaves it to the requester."""

    async def append(self: Log, conversation: ConversationId, entry: NewEntry, **times: Any) -> Receipt:  # noqa: ANN401
        appended = await self.pipeline.append(conversation, entry, **times)
        await checkpoint()
        stored(self, conversation, [appended])
        return Receipt("stored", appended.entry, appended.duplicate)

    with patch.object(Log, "_stored", nothing), patch.object(Log, "append", append):
        yield


@contextmanager
def _store_without_deadline() -> Iterator[None]:
    """Stores are used as they are: whoever asks waits for as long as they like."""

    def as_it_is(bundle: Bundle, deadline_s: float) -> Bundle:
        return bundle

    async def unguarded(self: Stack, call: Callable[[], Awaitable[object]], **_: object) -> object:
        return await call()

    with patch.object(node, "within_deadline", as_it_is), patch.object(Stack, "__call__", unguarded):
        yield


@contextmanager
def _removed_and_still_there() -> Iterator[None]:
    """A socket keeps its places when its user is no member any more."""

    def keep(self: Subscriptions, channel: str) -> bool:
        return True

    with patch.object(Subscriptions, "withdraw", keep):
        yield


@contextmanager
def _ended_and_still_open() -> Iterator[None]:
    """A socket outlives the login session that opened it."""

    def stay(self: NativeSocket, reason: str) -> None:
        """Nothing is said, nothing is closed."""

    with patch.object(NativeSocket, "end_session", stay):
        yield


@contextmanager
def _hole_never_repaired() -> Iterator[None]:
    """Each head is named once, and that digests are missing makes nobody look."""

    def never(self: Reader, now: float = 0.0) -> bool:
        return False

    with (
        patch.object(digest, "REPEATS", 1),
        patch.object(Reader, "wants_table", never),
        patch.object(Reader, "sweep_begins", never),
    ):
        yield


@contextmanager
def _health_hides_a_fault() -> Iterator[None]:
    """What was well once stays so."""
    failed = Dependency.failed

    def hide(self: Dependency, error: str, now_us: int) -> None:
        if self.state != "up":
            failed(self, error, now_us)

    with patch.object(Dependency, "failed", hide):
        yield


@contextmanager
def _probe_only_pings() -> Iterator[None]:
    """The probe reads: a database that takes no writes passes."""

    def prober(engine: Engine, node: NodeId, clock: Clock) -> Callable[[], Awaitable[None]]:
        def ping() -> Plan[None]:
            yield "SELECT 1", ()

        async def probe() -> None:
            await engine.read(ping)

        return probe

    with patch.object(probes, "prober", prober):
        yield


@contextmanager
def _unrevoked_token() -> Iterator[None]:
    """What the database tells replaces what this node knows, instead of being added to it."""
    follow = RevocationSet.follow

    async def replace_all(self: RevocationSet, store: RevocationStore, tell: Callable[[Revocation], None]) -> None:
        known, self._until = self._until, {}
        try:
            await follow(self, store, tell)
        except BaseException:
            self._until = known
            raise

    with patch.object(RevocationSet, "follow", replace_all):
        yield


@contextmanager
def _lock_reset() -> Iterator[None]:
    """Locks live in Redis alone."""

    def unknown(self: LockSet, key: str) -> int:
        return 0

    with patch.object(LockSet, "until_us", unknown):
        yield


@contextmanager
def _blind_copy_back() -> Iterator[None]:
    """After an outage of Redis this node's own count is written over the one there."""

    async def overwrite(self: MemoryLockoutStore, key: str, tally: Tally) -> Tally:
        await checkpoint()
        return self._keep(key, tally)

    with patch.object(MemoryLockoutStore, "merge", overwrite):
        yield


BUGS: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "lost on reconnect": _lost_on_reconnect,
    "missing deadline": _missing_deadline,
    "unbounded queue": _unbounded_queue,
    "retry without key": _retry_without_key,
    "publish out of order": _publish_out_of_order,
    "cancelled between commit and publish": _cancelled_between,
    "store without deadline": _store_without_deadline,
    "removed and still there": _removed_and_still_there,
    "ended and still open": _ended_and_still_open,
    "un-revoked token": _unrevoked_token,
    "lock reset": _lock_reset,
    "blind copy back": _blind_copy_back,
    "hole never repaired after a lost digest": _hole_never_repaired,
    "health that hides a fault": _health_hides_a_fault,
    "probe that only pings": _probe_only_pings,
}
