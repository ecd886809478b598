"""Conversations and messages on memory stores: the real services, a set clock, numbered ids, and everything told written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from tests.features.auth.kit import START_US, FixedClock, SeededIds, user

from secureconnect.backends.memory.announcements import MemoryAnnouncementStore
from secureconnect.backends.memory.auth import MemoryRevocations, MemorySessions, MemoryUsers
from secureconnect.backends.memory.conversations import MemoryConversations
from secureconnect.backends.memory.directory import MemoryDirectory
from secureconnect.backends.memory.log import MemoryLogStore
from secureconnect.errors import BackendDown
from secureconnect.features.access.service import Access
from secureconnect.features.auth.model import User
from secureconnect.features.conversations.model import SettingsChange
from secureconnect.features.conversations.service import Conversations, NewConversation
from secureconnect.features.conversations.tidings import MembershipSignals
from secureconnect.features.log.announcer import Announcer
from secureconnect.features.log.model import NewEntry
from secureconnect.features.log.service import Receipt
from secureconnect.features.messages.model import NewMessage
from secureconnect.features.messages.service import Messages
from secureconnect.ids import ConversationId, UserId

ADA, BOB, CYD, DAN, EVE = (user(number).id for number in range(1, 6))
NAMES = {ADA: "ada", BOB: "bob", CYD: "cyd", DAN: "dan", EVE: "eve"}
PLAIN = SettingsChange(is_e2ee_enabled=False)
NOBODY = UserId("00000000-0000-4000-8000-00000000dead")
NOWHERE = ConversationId("00000000-0000-4000-8000-00000000beef")


class StoreLog(MemoryLogStore):
    """The log without pipeline and hub: every append is its own. `is_away` makes appends fail before they are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False

    def head(self, conversation: str) -> int:
        return self._logs[ConversationId(conversation)].head.tail if conversation in self._logs else 0

    async def append_one(
        self,
        conversation: ConversationId,
        entry: NewEntry,
        *,
        placed: Callable[[], None] | None = None,
        asked_s: float | None = None,
    ) -> Receipt:
        (receipt,) = await self.append_all(conversation, [entry])
        return receipt

    async def append_all(self, conversation: ConversationId, entries: Sequence[NewEntry]) -> Sequence[Receipt]:
        if self.is_away:
            raise BackendDown("log")
        appended = await self.append(conversation, entries)
        return [Receipt("stored", one.entry, one.duplicate) for one in appended]


class MessageLog:
    """What Messages knows as the log."""

    def __init__(self, store: StoreLog) -> None:
        self.now_s = float
        self.append = store.append_one
        self.read = store.read
        self.messages = store.messages
        self.message = store.message
        self.locate = store.locate


@dataclass
class Told:
    """A signal or an event. `tail`: where the conversation's log ended at that moment."""

    kind: str
    word: str
    user: UserId
    body: dict[str, Any]
    tail: int


@dataclass
class World:
    """One node's conversations, with five people who exist: ada, bob, cyd, dan, eve."""

    clock: FixedClock
    accounts: MemoryUsers
    log: StoreLog
    announcements: MemoryAnnouncementStore
    store: MemoryConversations
    access: Access
    announcer: Announcer
    conversations: Conversations
    messages: Messages
    told: list[Told]
    """Signals and events in the order in which they were told."""

    async def group(self, creator: UserId, *others: UserId, settings: SettingsChange = PLAIN) -> ConversationId:
        new = NewConversation("group", others, title="Lunch", settings=settings)
        summary, fresh = await self.conversations.create(creator, new)
        assert fresh
        self.told.clear()
        return summary.conversation.id

    async def direct(self, one: UserId, other: UserId, settings: SettingsChange = PLAIN) -> ConversationId:
        summary, _ = await self.conversations.create(one, NewConversation("direct", [other], settings=settings))
        self.told.clear()
        return summary.conversation.id

    async def say(self, who: UserId, conversation: ConversationId, text: str = "hi") -> dict[str, Any]:
        sent = await self.messages.send(who, conversation, NewMessage(content=text))
        return shown(sent.body)

    async def entries(self, conversation: ConversationId) -> list[tuple[str, dict[str, Any]]]:
        """The log: kinds and bodies."""
        page = await self.log.read(conversation, 0, 10_000)
        assert [entry.sequence for entry in page.entries] == list(range(1, page.head.tail + 1))
        return [(entry.kind, shown(entry.body())) for entry in page.entries]

    async def visible_from(self, who: UserId, conversation: ConversationId) -> int:
        _, membership = await self.access.member(conversation, who)
        return membership.visible_from

    def words(self) -> list[tuple[str, str, str]]:
        """What was told: `signal` or `event`, its word, whom it is about."""
        return [(told.kind, told.word, NAMES[told.user]) for told in self.told]


def shown(data: bytes) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(data)
    return body


async def open_world() -> World:
    clock, ids = FixedClock(), SeededIds()
    accounts = MemoryUsers(MemorySessions(MemoryRevocations()))
    log, announcements = StoreLog(), MemoryAnnouncementStore()
    directory = MemoryDirectory(accounts)
    store = MemoryConversations(announcements, log=log, directory=directory)
    access = Access(store, lambda: clock.us / 1_000_000)
    told: list[Told] = []

    def signal(name: str, data: bytes) -> None:
        assert name == "membership"
        body = shown(data)
        told.append(Told("signal", body["change"], UserId(body["user_id"]), body, log.head(body["conversation_id"])))

    def publish(channel: str, event: str, data: bytes) -> None:
        body = shown(data)
        user_id = UserId(channel.removeprefix("user:"))
        told.append(Told("event", event, user_id, body, log.head(body["conversation_id"])))

    announcer = Announcer(announcements, log.append_all, told=MembershipSignals(access, signal=signal).told)
    conversations = Conversations(store, access, directory, announcer, clock=clock, ids=ids, signal=signal, publish=publish)
    messages = Messages(MessageLog(log), access, clock=clock, ids=ids)
    for person, name in NAMES.items():
        await accounts.add(User(person, f"{name}@example.com", name, name.title(), START_US, START_US), "hash")
    return World(clock, accounts, log, announcements, store, access, announcer, conversations, messages, told)
