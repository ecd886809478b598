"""No store and no bus without its contract suite: each protocol that a node stands on, with everything that implements it."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from secureconnect import backends
from secureconnect.backends.bundle import Bundle, Conversations, Shared
from secureconnect.features.auth.store import RevocationStore, SessionStore, UserStore
from secureconnect.features.conversations.store import UserDirectory
from secureconnect.features.lockout.store import LockoutStore, LockStore
from secureconnect.features.log.announcer import AnnouncementStore
from secureconnect.features.log.store import LogStore
from secureconnect.features.presence.store import LeaseStore
from secureconnect.features.rates.store import RateStore
from secureconnect.hub import Bus, DigestTable, MemoryBus

SUITES: Mapping[str, tuple[type, str]] = {
    "users": (UserStore, "auth_stores"),
    "sessions": (SessionStore, "auth_stores"),
    "revocations": (RevocationStore, "auth_stores"),
    "conversations": (Conversations, "conversation_store"),
    "directory": (UserDirectory, "conversation_store"),
    "log": (LogStore, "log_store"),
    "announcements": (AnnouncementStore, "announcement_store"),
    "digests": (DigestTable, "digest_table"),
    "bus": (Bus, "bus"),
    "rates": (RateStore, "rate_store"),
    "lockouts": (LockoutStore, "lockout_store"),
    "locks": (LockStore, "lock_store"),
    "leases": (LeaseStore, "lease_store"),
}
NO_STORES = {"watched", "queues", "generation"}
ROOMS = ("memory", "sql", "redis")
ONE_SERVER_ONLY = {"rates", "lockouts", "leases", "bus"}
"""What nodes share through Redis; the rest is in SQL."""


def methods(one: type) -> Mapping[str, list[str]]:
    """By name, each with its parameters."""
    found = inspect.getmembers(one, inspect.isfunction)
    return {name: list(inspect.signature(method).parameters) for name, method in found if not name.startswith("_")}


def kinds(one: type) -> list[type]:
    """The protocols whose methods it has, without those that are a part of another one of them."""
    found = {protocol: methods(protocol) for protocol, _ in SUITES.values() if methods(protocol).items() <= methods(one).items()}
    return [protocol for protocol, own in found.items() if not any(own.items() < other.items() for other in found.values())]


def implementations(protocol: type) -> Iterator[type]:
    """Classes of the backends that have all its methods."""
    for room in ROOMS:
        for module in pkgutil.iter_modules([f"{backends.__path__[0]}/{room}"], f"{backends.__name__}.{room}."):
            for _, one in inspect.getmembers(import_module(module.name), inspect.isclass):
                if one.__module__ == module.name and protocol in kinds(one):
                    yield one
    if protocol is Bus:
        yield MemoryBus


def test_every_store_of_a_node_has_a_suite() -> None:
    assert {field.name for kind in (Bundle, Shared) for field in fields(kind)} - NO_STORES == set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_the_suite_runs_every_implementation_and_calls_every_method(name: str) -> None:
    protocol, suite = SUITES[name]
    text = (Path(__file__).parent / f"test_{suite}.py").read_text()
    found = {one.__name__ for one in implementations(protocol)}
    assert len(found) == 2, "one in memory, one on a server"
    assert {one for one in found if f"{one}(" not in text} == set()
    assert {method for method in methods(protocol) if f".{method}(" not in text and f".{method}," not in text} == set()
    assert ("shared: Client | None" in text or "redis_server" in text) == (name in ONE_SERVER_ONLY)
    assert ("engine: Engine | None" in text) == (name not in ONE_SERVER_ONLY)
