"""Messages: send, edit, delete, read one, read back, read the log. What is stored went through `features/log`, the one way in.

Everybody reads from the own `visible_from` on, whichever way is taken: what lies before does not exist for this member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import UNSET, structs

from secureconnect.errors import Conflict, Forbidden, NotFound, Refused
from secureconnect.features.access.model import Membership, Standing
from secureconnect.features.access.service import Access
from secureconnect.features.log.model import (
    MESSAGE_CREATED,
    MESSAGE_DELETED,
    MESSAGE_EDITED,
    Entry,
    LogPage,
    NewEntry,
    with_numbers,
)
from secureconnect.features.messages import model
from secureconnect.features.messages.model import (
    History,
    LogSlice,
    Message,
    NewMessage,
    Sent,
    check_client_message_id,
    check_content,
    check_metadata,
    decode,
    encode,
    invalid,
    reply_target,
)
from secureconnect.ids import ConversationId, MessageId, UserId, is_uuid, message_id
from secureconnect.ports import Clock, Ids, rfc3339


class Receipt(Protocol):
    """What the log says of an append."""

    @property
    def ack(self) -> Literal["stored"]: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def duplicate(self) -> bool: ...


class Log(Protocol):
    """The log, as far as messages need it; `features/log` is it."""

    def now_s(self) -> float: ...
    async def append(
        self,
        conversation: ConversationId,
        entry: NewEntry,
        *,
        placed: Callable[[], None] | None = None,
        asked_s: float | None = None,
    ) -> Receipt: ...
    async def read(self, conversation: ConversationId, after: int, limit: int) -> LogPage: ...
    async def messages(self, conversation: ConversationId, *, below: int | None, limit: int, floor: int) -> Sequence[Entry]: ...
    async def message(self, conversation: ConversationId, message: MessageId) -> Entry | None: ...
    async def locate(self, message: MessageId) -> ConversationId | None: ...


class Messages:
    """The rules of messages."""

    def __init__(self, log: Log, access: Access, *, clock: Clock, ids: Ids) -> None:
        self._log = log
        self._access = access
        self._clock = clock
        self._ids = ids

    async def send(
        self, me: UserId, conversation: ConversationId, new: NewMessage, *, placed: Callable[[], None] | None = None
    ) -> Sent:
        """Store a message. With a `client_message_id` a repetition answers with the first result, whatever it says now.

        `placed` is called when nothing that is sent later can come before it; not at all when it is refused before.

        Raises: NotFound, Forbidden, BadRequest (`details.field`; `details.reason` E2EE_REQUIRED), TooLarge, and what the log's
        append raises: Overloaded, StorageFull, BackendDown (nothing stored).
        Cancellation: it may be stored.
        """
        asked_s = self._log.now_s()
        standing, membership = await self._access.member(conversation, me)
        identity = self._identity(me, conversation, new.client_message_id)
        at_us = self._clock.now_us()
        try:
            body = await self._body(standing, membership, new, identity, at_us)
        except Refused:
            first = await self._log.message(conversation, identity) if new.client_message_id else None
            if first is None:
                raise
            return Sent(first.body(), "stored", duplicate=True)  # the rules changed between the first try and this one
        entry = NewEntry(identity, MESSAGE_CREATED, encode(body), me, at_us, message=identity)
        receipt = await self._log.append(conversation, entry, placed=placed, asked_s=asked_s)
        return Sent(receipt.entry.body(), receipt.ack, receipt.duplicate)

    async def edit(
        self,
        me: UserId,
        message: MessageId,
        content: str,
        *,
        conversation: ConversationId | None = None,
        is_encrypted: bool | None = None,
    ) -> bytes:
        """Replace the content of an own message; the message as it reads now. The same content again changes nothing.

        Raises: NotFound, Forbidden (not the sender), Conflict (deleted), BadRequest, TooLarge, and what the log's append raises.
        """
        found = await self._find(me, message, conversation)
        if found.message.sender_id != me:
            raise Forbidden("Only its sender may edit a message")
        if found.is_deleted:
            raise Conflict("The message was deleted", details={"message_id": message})
        encrypted = found.message.is_encrypted if is_encrypted is None else is_encrypted
        check_content(content, is_encrypted=encrypted)
        require_encryption(found.standing, is_encrypted=encrypted)
        if (content, encrypted) == (found.message.content, found.message.is_encrypted):
            return found.entry.body()
        at_us = self._clock.now_us()
        edited = structs.replace(found.message, content=content, is_encrypted=encrypted, edited_at=rfc3339(at_us))
        said = found.about() | {
            "content": content,
            "is_encrypted": encrypted,
            "message_type": edited.message_type,
            "content_type": edited.content_type,
            "edited_at": edited.edited_at,
        }
        entry = NewEntry(self._ids.new(), MESSAGE_EDITED, encode(said), me, at_us, message=message, replacement=encode(edited))
        await self._log.append(found.standing.rules.conversation, entry)
        return found.renewed(edited)

    async def delete(self, me: UserId, message: MessageId, *, conversation: ConversationId | None = None) -> bytes:
        """Delete a message: its own sender, or an admin of the group. The tombstone; a second time answers it again.

        Raises: NotFound, Forbidden, and what the log's append raises.
        """
        found = await self._find(me, message, conversation)
        moderates = found.standing.rules.type == "group" and found.membership.role == "admin"
        if found.message.sender_id != me and not moderates:
            raise Forbidden("Only its sender or an admin of the group may delete a message")
        if found.is_deleted:
            return found.entry.body()
        at_us = self._clock.now_us()
        tombstone = found.message.tombstone(rfc3339(at_us))
        gone = found.about() | {"deleted_at": tombstone.deleted_at}
        entry = NewEntry(
            f"{message}:deleted",  # one for ever: of two deletions at once the second is the first again
            MESSAGE_DELETED,
            encode(gone | {"actor_id": me}),
            me,
            at_us,
            message=message,
            replacement=encode(tombstone),
            redaction=encode(gone),
        )
        await self._log.append(found.standing.rules.conversation, entry)
        return found.renewed(tombstone)

    async def get(self, me: UserId, message: MessageId, *, conversation: ConversationId | None = None) -> bytes:
        """One message as it reads now. Raises: NotFound, Forbidden, BackendDown."""
        return (await self._find(me, message, conversation)).entry.body()

    async def history(self, me: UserId, conversation: ConversationId, *, limit: int, cursor: str | None = None) -> History:
        """Messages as they read now, the newest first; a `limit` above `HISTORY_MAX` is that.

        `cursor`: `next` of the page before, or the id of the last message seen.
        Raises: NotFound, Forbidden, BadRequest (a cursor that is none), BackendDown.
        """
        _, membership = await self._access.member(conversation, me)
        limit = min(limit, model.HISTORY_MAX)
        below = await self._below(conversation, membership, cursor)
        found = await self._log.messages(conversation, below=below, limit=limit + 1, floor=membership.visible_from)
        page = found[:limit]
        more = model.cursor_below(page[-1].message_number) if len(found) > limit else None
        return History(tuple(entry.body() for entry in page), more)

    async def entries(self, me: UserId, conversation: ConversationId, *, after: int, limit: int) -> LogSlice:
        """The log itself, above `after`; a `limit` above `LOG_MAX` is that. Raises: NotFound, Forbidden, BackendDown."""
        _, membership = await self._access.member(conversation, me)
        floor = membership.visible_from
        page = await self._log.read(conversation, max(after, floor - 1), min(limit, model.LOG_MAX))
        first = min(max(floor, page.head.first), page.head.tail + 1)
        return LogSlice(tuple(entry.envelope() for entry in page.entries), first, page.head.tail)

    def _identity(self, me: UserId, conversation: ConversationId, client_message_id: str | None) -> MessageId:
        if client_message_id is None:
            return MessageId(self._ids.new())
        check_client_message_id(client_message_id)
        return message_id(conversation, me, client_message_id)

    async def _body(
        self, standing: Standing, membership: Membership, new: NewMessage, identity: MessageId, at_us: int
    ) -> Message:
        """The body of a message that may be sent. Raises: BadRequest, TooLarge."""
        check_content(new.content, is_encrypted=new.is_encrypted)
        require_encryption(standing, is_encrypted=new.is_encrypted)
        if new.metadata:
            check_metadata(new.metadata)
        target = await self._reply(membership, new)
        moment = rfc3339(at_us)
        return Message(
            message_id=identity,
            conversation_id=membership.conversation,
            sender_id=membership.user,
            content=new.content,
            is_encrypted=new.is_encrypted,
            message_type=new.message_type,
            content_type=new.message_type,
            sent_at=moment,
            created_at=moment,
            metadata=dict(new.metadata) if new.metadata else UNSET,
            reply_to_message_id=target or UNSET,
            client_message_id=new.client_message_id or UNSET,
        )

    async def _reply(self, membership: Membership, new: NewMessage) -> MessageId | None:
        """The message that this one replies to. Raises: BadRequest when the sender can see none of this id here."""
        target = reply_target(new)
        if target is None:
            return None
        message = MessageId(target.lower())
        entry = await self._log.message(membership.conversation, message) if is_uuid(message) else None
        if entry is None or entry.sequence < membership.visible_from:
            raise invalid("reply_to_message_id", "There is no such message in this conversation")
        return message

    async def _find(self, me: UserId, message: MessageId, conversation: ConversationId | None) -> Found:
        """A message that I may read. Raises: NotFound, Forbidden (a stranger to its conversation), BackendDown."""
        home = conversation or await self._log.locate(message)
        if home is None:
            raise no_such_message()
        standing, membership = await self._access.member(home, me)
        entry = await self._log.message(home, message)
        if entry is None or entry.sequence < membership.visible_from:
            raise no_such_message()
        return Found(standing, membership, entry, decode(entry.data))

    async def _below(self, conversation: ConversationId, membership: Membership, cursor: str | None) -> int | None:
        if not cursor:
            return None
        told = model.read_cursor(cursor)
        if isinstance(told, int):
            return told
        entry = await self._log.message(conversation, MessageId(told))
        if entry is None or entry.sequence < membership.visible_from:
            raise invalid("cursor", "There is no such message in this conversation")
        return entry.message_number


@dataclass(frozen=True, slots=True)
class Found:
    """A message, its reader's standing, and its entry with the present body."""

    standing: Standing
    membership: Membership
    entry: Entry
    message: Message

    @property
    def is_deleted(self) -> bool:
        return self.message.deleted_at is not UNSET

    def about(self) -> dict[str, object]:
        """What every entry about this message says. Its own number goes by another name: `sequence` is the new entry's."""
        return {
            "conversation_id": self.message.conversation_id,
            "message_id": self.message.message_id,
            "sender_id": self.message.sender_id,
            "message_sequence": self.entry.sequence,
        }

    def renewed(self, message: Message) -> bytes:
        """The message as it reads with a new body."""
        return with_numbers(encode(message), self.entry.sequence, self.entry.message_number)


def require_encryption(standing: Standing, *, is_encrypted: bool) -> None:
    """Raises: BadRequest when plain text is meant for a conversation that is encrypted end to end."""
    if standing.rules.is_e2ee_enabled and not is_encrypted:
        raise invalid("is_encrypted", "This conversation takes encrypted messages only", reason="E2EE_REQUIRED")


def no_such_message() -> NotFound:
    return NotFound("There is no such message", details={"field": "message_id"})
