"""No store call outlives its deadline, whatever the store stands on."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from secureconnect.backends.bundle import Bundle, Conversations
from secureconnect.backends.deadlines import PASSED, WRITES, within_deadline
from secureconnect.backends.memory.bundle import memory_bundle, memory_shared
from secureconnect.backends.memory.digests import MemoryDigestTable
from secureconnect.backends.system import SystemIds, SystemRng
from secureconnect.config import Settings
from secureconnect.errors import DeadlineExceeded, NotFound, OutcomeUnknown, Unavailable
from secureconnect.features.auth.store import RevocationStore, SessionStore, UserStore
from secureconnect.features.conversations.store import UserDirectory
from secureconnect.features.lockout.store import LockStore
from secureconnect.features.log.announcer import AnnouncementStore
from secureconnect.features.log.store import LogStore
from secureconnect.ids import NodeId
from secureconnect.node import Node, Ports
from secureconnect.testing.world import InlineBlocking, World, WorldClock

PROTOCOLS: Mapping[str, type] = {
    "users": UserStore,
    "sessions": SessionStore,
    "revocations": RevocationStore,
    "locks": LockStore,
    "conversations": Conversations,
    "directory": UserDirectory,
    "log": LogStore,
    "announcements": AnnouncementStore,
}
READERS = ("by_", "co_members", "conversations_of", "credentials", "heads", "list_of", "locate", "member_ids", "message",
           "participants", "pending", "read", "session", "since", "standing", "summary", "user")  # fmt: skip
"""How the names of methods begin that change nothing."""


class Stuck:
    """A store that answers nothing."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # stands for any store
        async def call(*args: object, **named: object) -> object:
            await trio.sleep_forever()
            raise AssertionError(name)

        return call


def calls() -> Iterator[tuple[str, str]]:
    for store, protocol in PROTOCOLS.items():
        for method, _ in inspect.getmembers(protocol, inspect.isfunction):
            if not method.startswith("_"):
                yield store, method


def stuck_bundle() -> Bundle:
    return replace(memory_bundle(digests=MemoryDigestTable()), **cast("dict[str, Any]", dict.fromkeys(PROTOCOLS, Stuck())))


def test_every_store_of_the_bundle_stands_behind_the_door_but_the_digests_whose_hub_sets_the_deadline() -> None:
    others = {"digests", "watched", "queues"}
    assert {field.name for field in fields(Bundle)} == set(PROTOCOLS) | others == set(WRITES) | others


@pytest.mark.parametrize(("store", "method"), list(calls()))
def test_every_method_is_known_to_write_or_to_read(store: str, method: str) -> None:
    """A new one must be put on one of the two sides: the error of an abandoned call says whether it may have happened."""
    is_write = method in WRITES[store] or method in PASSED.get(store, ())
    assert is_write != method.startswith(READERS)


@pytest.mark.parametrize(("store", "method"), [(s, m) for s, m in calls() if m not in PASSED.get(s, ())])
def test_a_call_that_gets_no_answer_ends_at_the_deadline_and_says_whether_it_may_have_happened(store: str, method: str) -> None:
    async def main() -> None:
        bounded = getattr(within_deadline(stuck_bundle(), 5.0), store)
        began_s = trio.current_time()
        with pytest.raises(OutcomeUnknown if method in WRITES[store] else DeadlineExceeded):
            await getattr(bounded, method)()
        assert trio.current_time() - began_s == pytest.approx(5.0)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_an_answer_in_time_and_a_refusal_pass_unchanged() -> None:
    class Store:
        async def user(self, user: str) -> str:
            await trio.sleep(4.9)
            if user == "nobody":
                raise NotFound("nobody")
            return user

    async def main() -> None:
        bounded = within_deadline(replace(memory_bundle(), **cast("dict[str, Any]", {"users": Store()})), 5.0).users
        assert cast(object, await bounded.user(cast(Any, "somebody"))) == "somebody"
        with pytest.raises(NotFound):
            await bounded.user(cast(Any, "nobody"))

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_node_bounds_stores_that_set_no_deadline_themselves() -> None:
    world = World(1)

    async def main() -> None:
        ports = Ports(WorldClock(world), SystemRng(), SystemIds(), InlineBlocking())
        settings = Settings(data_dir=Path("unused"))
        node = Node(
            stuck_bundle(),
            ports,
            settings,
            secret=b"a secret of thirty-two bytes or more",
            name=NodeId("n"),
            shared=memory_shared(ports.clock),
        )
        with trio.fail_after(5.1), pytest.raises(Unavailable):
            await node.auth.find("somebody")

    trio.run(main, clock=world.clock)
