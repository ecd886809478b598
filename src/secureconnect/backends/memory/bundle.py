"""All stores in memory in one hand: the backend of tests and of the simulator, shared by the nodes of one world."""

from __future__ import annotations

import anyio.lowlevel

from secureconnect.backends.bundle import Bundle, Shared, Watched
from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.auth import MemoryRevocations, MemorySessions, MemoryUsers
from secureconnect.backends.memory.conversations import MemoryConversations
from secureconnect.backends.memory.directory import MemoryDirectory
from secureconnect.backends.memory.leases import MemoryLeaseStore
from secureconnect.backends.memory.lockout import MemoryLockoutStore
from secureconnect.backends.memory.locks import MemoryLocks
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.hub import Bus, DigestTable, MemoryBus
from secureconnect.ports import Clock


def memory_bundle(*, digests: DigestTable | None = None) -> Bundle:
    """Fresh, empty stores. `digests`: the table that several nodes share; None for a single one."""
    announcements, log, revocations = MemoryAnnouncementStore(), MemoryLogStore(), MemoryRevocations()
    sessions = MemorySessions(revocations)
    users = MemoryUsers(sessions)
    directory = MemoryDirectory(users)
    return Bundle(
        users=users,
        sessions=sessions,
        revocations=revocations,
        locks=MemoryLocks(),
        conversations=MemoryConversations(announcements, log=log, directory=directory),
        directory=directory,
        log=log,
        announcements=announcements,
        digests=digests,
        watched=Watched("sql", anyio.lowlevel.checkpoint),
        queues=dict,
    )


def memory_shared(clock: Clock, bus: Bus | None = None) -> Shared:
    """What one node alone has in place of what nodes share. `bus` None: one that nobody else is on."""
    return Shared(
        bus=MemoryBus() if bus is None else bus,
        rates=None,
        lockouts=MemoryLockoutStore(clock),
        leases=MemoryLeaseStore(clock),
    )
